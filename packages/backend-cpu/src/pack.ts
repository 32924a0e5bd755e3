// How a kernel call crosses to native code: its number, and its arguments one after another in one array of doubles.
// The order of the fields is that of native/view.h and of each kernel's reads. Knows views. Knows no memory and no addon.

import type { DType, Kernels, View } from "@diffmamba/tensor";
import type { CpuBuffer } from "./memory.js";

/** The kernels in the order of native/kernels.h. */
export const kernelNames = [
  "unary",
  "binary",
  "compare",
  "where",
  "reduce",
  "argmax",
  "cumsum",
  "matmul",
  "gather",
  "scatterAdd",
  "copy",
  "fill",
  "iota",
  "random",
  "causalConv1d",
  "causalConv1dBackward",
  "selectiveScan",
  "selectiveScanBackward",
  "ssdScan",
  "ssdScanBackward",
  "rmsNorm",
  "rmsNormBackward",
  "addRmsNorm",
  "addRmsNormBackward",
  "layerNorm",
  "layerNormBackward",
  "softmaxCrossEntropy",
  "softmaxCrossEntropyBackward",
  "sample",
  "globalNorm",
  "adamw",
] as const satisfies readonly (keyof Kernels)[];

export type KernelName = (typeof kernelNames)[number];

const typeNumbers: Readonly<Partial<Record<DType, number>>> = { f32: 0, bf16: 1, f16: 2, i32: 3, u8: 4 };

const bytes: Readonly<Record<DType, number>> = { f32: 4, f64: 8, bf16: 2, f16: 2, i32: 4, u8: 1 };

/** Axes that a packed view has room for. */
export const MAX_RANK = 6;

/** Doubles of one packed view: address, type, rank, six sizes, six strides. */
const VIEW_DOUBLES = 3 + 2 * MAX_RANK;

/** Writes arguments one after another. Reused for every call; nothing is allocated but when a list outgrows it. */
export class Packer {
  array = new Float64Array(4096);
  #at = 0;

  /** Called with the new array when the old one became too small. */
  constructor(private readonly onGrow: (array: Float64Array) => void) {}

  /** How many doubles of the array are written. */
  get length(): number {
    return this.#at;
  }

  begin(): this {
    this.#at = 0;
    return this;
  }

  number(value: number): this {
    this.#reserve(1);
    this.array[this.#at++] = value;
    return this;
  }

  flag(value: boolean): this {
    return this.number(value ? 1 : 0);
  }

  /** A view, or the mark of one that is absent. */
  view(view: View | undefined): this {
    this.#reserve(VIEW_DOUBLES);
    const { array } = this;
    const at = this.#at;
    this.#at += VIEW_DOUBLES;
    if (view === undefined) {
      array.fill(0, at, at + VIEW_DOUBLES);
      return this;
    }
    const { shape, strides, dtype, offset } = view;
    const rank = shape.length;
    array[at] = (view.buffer as CpuBuffer).address + offset * bytes[dtype];
    array[at + 1] = typeNumbers[dtype] ?? -1;
    array[at + 2] = rank;
    for (let i = 0; i < MAX_RANK; i++) {
      array[at + 3 + i] = i < rank ? shape[i] : 1;
      array[at + 3 + MAX_RANK + i] = i < rank ? strides[i] : 0;
    }
    return this;
  }

  views(views: Readonly<Record<string, View | undefined>>, names: readonly string[]): this {
    for (const name of names) this.view(views[name]);
    return this;
  }

  #reserve(doubles: number): void {
    if (this.#at + doubles <= this.array.length) return;
    const larger = new Float64Array(2 * (this.#at + doubles));
    larger.set(this.array);
    this.array = larger;
    this.onGrow(larger);
  }
}

/** Calls one after another in one array: of each the kernel's number, how many arguments it has, and these. */
export class PackedCalls {
  #array = new Float64Array(4096);
  #length = 0;

  get array(): Float64Array {
    return this.#array;
  }

  /** How many doubles of the array are written. */
  get length(): number {
    return this.#length;
  }

  add(kernel: number, packed: Float64Array): void {
    const end = this.#length + 2 + packed.length;
    if (end > this.#array.length) {
      const larger = new Float64Array(2 * end);
      larger.set(this.#array);
      this.#array = larger;
    }
    this.#array[this.#length] = kernel;
    this.#array[this.#length + 1] = packed.length;
    this.#array.set(packed, this.#length + 2);
    this.#length = end;
  }
}
