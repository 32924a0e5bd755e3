// Layer: CUDA backend. The one array in which launches and matrix products cross to the native side: a header, then a kernel's
// parameters as they lie in memory. Knows the form of native/device.h (LaunchHeader). Knows no kernel.

import { BackendError } from "@diffmamba/tensor";
import type { Argument, Launch } from "./context.js";

const HEADER_BYTES = 64;
/** What every driver takes as parameters of a kernel. */
export const MAX_ARGUMENT_BYTES = 4096;

type Size = number | readonly [number, number?, number?];

const TWO_32 = 2 ** 32;

/** @throws BackendError for a number that 32 bits do not hold, with or without a sign */
function checkInt(name: string, value: number): void {
  if (value < TWO_32 && value >= -TWO_32 / 2) return;
  throw new BackendError(`cuda: ${name}: ${value} elements or steps are more than a kernel counts; split the tensor.`);
}

/** Packs one call after the other into the same memory. */
export class ArgumentBuffer {
  readonly bytes = new Uint8Array(HEADER_BYTES + MAX_ARGUMENT_BYTES + 64);
  readonly #i32 = new Int32Array(this.bytes.buffer);
  readonly #u32 = new Uint32Array(this.bytes.buffer);
  readonly #f32 = new Float32Array(this.bytes.buffer);
  readonly #f64 = new Float64Array(this.bytes.buffer);

  /**
   * A launch of the kernel with this number. @returns false where the grid has no blocks, and nothing is to be launched
   * @throws BackendError where there are more arguments than a kernel can have, or a grid is too large
   */
  launch(
    kernel: number,
    { kernel: name, grid, block, shared = 0, overlap = false, beside = false, args }: Launch,
  ): boolean {
    const header = this.#i32;
    header[0] = kernel;
    if (!this.#size(name, 1, grid, 2 ** 31 - 1, 65535)) return false;
    this.#size(name, 4, block, 1024, 1024);
    header[7] = shared;
    header[9] = Number(overlap);
    header[10] = Number(beside);
    header[8] = this.#arguments(name, args) - HEADER_BYTES;
    return true;
  }

  /** Numbers for the native side as doubles. */
  doubles(numbers: readonly number[]): void {
    this.#f64.set(numbers);
  }

  #size(name: string, at: number, size: Size, most: number, mostOthers: number): boolean {
    const [x, y = 1, z = 1] = typeof size === "number" ? [size] : size;
    if (x > most || y > mostOthers || z > mostOthers || !Number.isInteger(x * y * z) || x < 0 || y < 0 || z < 0) {
      throw new BackendError(`cuda: ${name}: a grid or block of ${x} x ${y} x ${z} is more than a device takes.`);
    }
    this.#i32[at] = x;
    this.#i32[at + 1] = y;
    this.#i32[at + 2] = z;
    return x * y * z > 0;
  }

  /** Each argument at the next multiple of its size. @returns where they end */
  #arguments(name: string, args: readonly Argument[]): number {
    let at = HEADER_BYTES;
    for (const argument of args) {
      switch (argument.kind) {
        case "i32":
          checkInt(name, argument.value);
          this.#i32[at >> 2] = argument.value;
          at += 4;
          break;
        case "f32":
          this.#f32[at >> 2] = argument.value;
          at += 4;
          break;
        case "pointer":
          at = this.#long(at, argument.address);
          break;
        case "i64":
          at = this.#long(at, argument.value);
          break;
        case "longs":
          for (const value of argument.values) at = this.#long(at, value);
          break;
        case "ints":
          for (const value of argument.values) checkInt(name, value);
          if (at + 4 * argument.values.length <= HEADER_BYTES + MAX_ARGUMENT_BYTES)
            this.#i32.set(argument.values, at >> 2);
          at += 4 * argument.values.length;
          break;
      }
      if (at > HEADER_BYTES + MAX_ARGUMENT_BYTES) {
        throw new BackendError(`cuda: ${name} has more than ${MAX_ARGUMENT_BYTES} bytes of arguments.`);
      }
    }
    return at;
  }

  /** A whole number of 8 bytes at the next multiple of 8. @returns where it ends */
  #long(at: number, value: number): number {
    const start = (at + 7) & ~7;
    const high = Math.floor(value / TWO_32);
    this.#u32[start >> 2] = value - high * TWO_32;
    this.#i32[(start >> 2) + 1] = high;
    return start + 8;
  }
}
