// The WebAssembly module behind the interface of the native addon, so that memory, packing and kernels are those of Node's
// backend.
// Knows the module's memory. Knows no view and no worker.

import type { Addon } from "../addon.js";
import { kernelNames } from "../pack.js";
import { type Exports, textAt } from "./instance.js";

/** Doubles that there is room for at first, which is more than any kernel takes but those of lists. */
const FIRST_DOUBLES = 1024;

export class WasmAddon implements Addon {
  readonly #exports: Exports;
  readonly #memory: WebAssembly.Memory;
  readonly #threads: number;
  /** Where arguments cross, and how many doubles there is room for. */
  #at = 0;
  #room = 0;
  #view: Float64Array = new Float64Array();
  #packed: Float64Array = new Float64Array();

  /** @param threads that share the loops of these exports, the caller included */
  constructor(exports: Exports, memory: WebAssembly.Memory, threads: number) {
    this.#exports = exports;
    this.#memory = memory;
    this.#threads = threads;
  }

  allocate(bytes: number): number {
    return this.#exports.allocate(bytes) >>> 0;
  }

  release(address: number): void {
    this.#exports.release(address);
  }

  write(address: number, bytes: Uint8Array): void {
    new Uint8Array(this.#memory.buffer, address, bytes.length).set(bytes);
  }

  read(address: number, bytes: Uint8Array): void {
    bytes.set(new Uint8Array(this.#memory.buffer, address, bytes.length));
  }

  share(packed: Float64Array): void {
    this.#packed = packed;
  }

  run(kernel: number, threads: number, count: number): string | undefined {
    const packed = this.#packed;
    const to = this.#argumentsFor(count);
    if (to === undefined) return "out of memory for its arguments";
    for (let i = 0; i < count; i++) to[i] = packed[i];
    const error = this.#exports.run(kernel, threads, to.byteOffset);
    return error === 0 ? undefined : textAt(this.#memory, error);
  }

  runAll(count: number, threads: number): string | undefined {
    const all = this.#packed;
    for (let at = 0; at < count; ) {
      const [kernel, size] = [all[at], all[at + 1]];
      this.#packed = all.subarray(at + 2, at + 2 + size);
      const error = this.run(kernel, threads, size);
      if (error !== undefined) return `${kernelNames[kernel]}: ${error}`;
      at += 2 + size;
    }
    return undefined;
  }

  start(threads: number): boolean {
    return threads <= this.#threads;
  }

  describe(): { readonly isa: string; readonly kernels: readonly string[] } {
    const kernels = textAt(this.#memory, this.#exports.kernels()).split(",").slice(0, -1);
    return { isa: `WASM, ${this.#exports.relaxed() === 1 ? "relaxed SIMD" : "SIMD"}`, kernels };
  }

  /** Room for so many doubles; undefined where there is none. */
  #argumentsFor(count: number): Float64Array | undefined {
    const { buffer } = this.#memory;
    if (count <= this.#room && this.#view.buffer === buffer) return this.#view;
    if (count > this.#room) {
      const room = Math.max(FIRST_DOUBLES, 2 * count);
      const at = this.allocate(8 * room);
      if (at === 0) return undefined;
      if (this.#at !== 0) this.release(this.#at);
      this.#at = at;
      this.#room = room;
    }
    // Also where memory has grown: its buffer is a new one then.
    this.#view = new Float64Array(this.#memory.buffer, this.#at, this.#room);
    return this.#view;
  }
}
