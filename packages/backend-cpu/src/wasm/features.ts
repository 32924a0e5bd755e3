// What this JavaScript engine offers a WebAssembly module: vectors, fused multiplication, threads; and which of the built
// modules is for that. Node's own modules are asked for as a page can ask: they are undefined there.
// Knows the engine. Knows no kernel.

/** The module's files, which scripts/build-wasm.mjs makes: with relaxed SIMD or without, for several threads or one. */
export type WasmFile =
  | "kernels-simd.wasm"
  | "kernels-simd-threads.wasm"
  | "kernels-relaxed.wasm"
  | "kernels-relaxed-threads.wasm";

/** A module of one function without arguments that returns a vector: the vectors 0, as many as `operation` takes. */
function vectorFunction(operands: number, operation: readonly number[]): Uint8Array<ArrayBuffer> {
  const zero = [0x41, 0, 0xfd, 0x0f]; // i32.const 0, i8x16.splat
  const body = [0, ...Array.from({ length: operands }, () => zero).flat(), ...operation, 0x0b];
  const code = [1, body.length, ...body];
  const types = [0x01, 5, 1, 0x60, 0, 1, 0x7b];
  return Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...types, 0x03, 2, 1, 0, 0x0a, code.length, ...code]);
}

const fixedSimd = vectorFunction(2, [0xfd, 0xe4, 0x01]); // f32x4.add
const relaxedSimd = vectorFunction(3, [0xfd, 0x85, 0x02]); // f32x4.relaxed_madd

/** Whether a module with instructions for vectors is valid here. */
export const hasSimd = (): boolean => typeof WebAssembly === "object" && WebAssembly.validate(fixedSimd);

/** Whether multiply-and-add may round once. */
export const hasRelaxedSimd = (): boolean => hasSimd() && WebAssembly.validate(relaxedSimd);

type NodeModules = {
  readonly "node:fs/promises": typeof import("node:fs/promises");
  readonly "node:os": typeof import("node:os");
  readonly "node:worker_threads": typeof import("node:worker_threads");
};

/** A module of Node's, undefined in a browser. No import, so that bundlers for browsers do not look for it. */
export function nodeModule<Name extends keyof NodeModules>(name: Name): NodeModules[Name] | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): unknown } };
  return process?.getBuiltinModule?.(name) as NodeModules[Name] | undefined;
}

/** Whether memory can be shared with workers: a page must be isolated from other origins for that. */
export function hasThreads(): boolean {
  if (typeof SharedArrayBuffer !== "function") return false;
  const { crossOriginIsolated } = globalThis as { crossOriginIsolated?: boolean };
  return crossOriginIsolated ?? nodeModule("node:worker_threads") !== undefined;
}

/** Whether this thread may sleep until another wakes it: a page's main thread may not. */
export function maySleep(): boolean {
  try {
    return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0) === "not-equal";
  } catch {
    return false;
  }
}

/** More threads than this have nothing to do: kernels cut their work into about as many pieces. */
const MOST_THREADS = 16;

/** Threads where nobody says: as many as the machine runs at once, up to 16; 1 where memory cannot be shared. */
export function defaultThreads(): number {
  if (!hasThreads()) return 1;
  const { navigator } = globalThis as { navigator?: { hardwareConcurrency?: number } };
  const processors = nodeModule("node:os")?.availableParallelism() ?? navigator?.hardwareConcurrency ?? 1;
  return Math.max(1, Math.min(processors, MOST_THREADS));
}

/** The file for this engine and so many threads. */
export function chooseFile(threads: number): WasmFile {
  if (hasRelaxedSimd()) return threads > 1 ? "kernels-relaxed-threads.wasm" : "kernels-relaxed.wasm";
  return threads > 1 ? "kernels-simd-threads.wasm" : "kernels-simd.wasm";
}
