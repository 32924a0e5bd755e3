// One instance of the WebAssembly module: what it exports, what it wants of the page, and the text it returns.
// Knows the module's interface (native/wasm/module.cc). Knows no view, no worker and no file.

/** The functions of native/wasm/module.cc; what is a pointer is a signed number here. */
export interface Exports {
  allocate(bytes: number): number;
  release(address: number): void;
  run(kernel: number, threads: number, packed: number): number;
  kernels(): number;
  relaxed(): number;
  caller(maySleep: number): void;
  help(): void;
  /** The linker's, of a module for several threads. */
  readonly __stack_pointer: WebAssembly.Global;
  readonly __tls_size?: WebAssembly.Global;
  __wasm_init_tls?(address: number): void;
}

/** Functions that WebAssembly has no instruction for; see native/wasm/math.cc. */
const math = {
  exp: Math.exp,
  log: Math.log,
  log1p: Math.log1p,
  tanh: Math.tanh,
  pow: Math.pow,
  fmod: (x: number, y: number) => x % y,
};

/** Instantiates the module over a memory, which a module for several threads shares with its other instances. */
export async function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Promise<Exports> {
  const instance = await WebAssembly.instantiate(module, { env: { memory }, math });
  return instance.exports as unknown as Exports;
}

/** Whether instances of a module can share a memory. */
export function isThreaded(module: WebAssembly.Module): boolean {
  return WebAssembly.Module.exports(module).some(({ name }) => name === "__wasm_init_tls");
}

/** Pages of 64 KiB: what a module begins with (scripts/build-wasm.mjs says the same to the linker), and 4 GiB. */
const FIRST_PAGES = 16;
const MOST_PAGES = 65536;
const LEAST_PAGES = 1024;

/** A memory that can grow to 4 GiB, or as far as this engine promises. @throws RangeError where it has none */
export function createMemory(shared: boolean): WebAssembly.Memory {
  for (let maximum = MOST_PAGES; ; maximum /= 2) {
    try {
      return new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared });
    } catch (error) {
      if (!(error instanceof RangeError) || maximum <= LEAST_PAGES) throw error;
    }
  }
}

/** The text (ASCII) that ends with a zero at an address. */
export function textAt(memory: WebAssembly.Memory, address: number): string {
  const bytes = new Uint8Array(memory.buffer);
  let text = "";
  for (let i = address >>> 0; bytes[i] !== 0; i++) text += String.fromCharCode(bytes[i]);
  return text;
}
