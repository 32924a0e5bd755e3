// Layer: CUDA backend. What a recording has named so far: buffers that none of its kernels was given are as they were before its replay.
// Knows arguments and addresses. Knows no kernel, and does not ask who reads and who writes.

import type { View } from "@diffmamba/tensor";
import { type Argument, addressOf } from "./context.js";
import type { Product } from "./kernels/index.js";
import type { CudaBuffer } from "./memory.js";

export class Touched {
  readonly #addresses = new Set<number>();

  /** All numbers that may be an address count as one: tables of them are written by kernels too. */
  launch(args: readonly Argument[]): void {
    for (const argument of args) {
      if (argument.kind === "pointer") this.#addresses.add(argument.address);
      else if (argument.kind === "longs") for (const value of argument.values) this.#addresses.add(value);
    }
  }

  product({ a, b, out, bias }: Product): void {
    for (const { view } of [a, b, out]) this.view(view);
    if (bias) this.view(bias);
  }

  view(view: View): void {
    this.#addresses.add(addressOf(view));
  }

  /** Whether any byte of the view's buffer may have been named. */
  has({ buffer }: View): boolean {
    const { address, bytes } = buffer as CudaBuffer;
    for (const named of this.#addresses) if (named >= address && named < address + bytes) return true;
    return false;
  }
}
