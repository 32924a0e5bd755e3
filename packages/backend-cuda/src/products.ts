// Layer: CUDA backend. How a matrix product is told to the native side, which asks cuBLASLt: a list of numbers.
// Knows native/blaslt.h. Knows no device.

import type { DType } from "@diffmamba/tensor";
import type { ArgumentBuffer } from "./arguments.js";
import { addressOf, isAligned } from "./context.js";
import type { Product } from "./kernels/index.js";

const floatTypes: Partial<Record<DType, number>> = { f32: 0, bf16: 1, f16: 2 };

/** Writes what `multiply` of the addon reads. @returns false for what cuBLASLt does not take */
export function packProduct(packed: ArgumentBuffer, product: Product, tf32: boolean): boolean {
  const { a, b, out, m, n, k, batch, accumulate, bias } = product;
  const [type, outType] = [floatTypes[a.view.dtype], floatTypes[out.view.dtype]];
  if (type === undefined || outType === undefined || (bias !== undefined && !isAligned(bias, 16))) return false;
  packed.doubles([
    ...[type, outType, ...[tf32, a.transposed, b.transposed, accumulate].map(Number)],
    ...[m, n, k, batch],
    ...[a, b, out].map(({ pitch }) => pitch),
    ...[a, b, out].map(({ step }) => step),
    ...[a, b, out].map(({ view }) => addressOf(view)),
    bias === undefined ? 0 : addressOf(bias),
  ]);
  return true;
}

/** As a profile calls it. */
export function productName({ a, m, n, k, batch, accumulate, bias }: Product): string {
  return `matmul ${batch}x${m}x${k}x${n} ${a.view.dtype}${accumulate ? " added" : ""}${bias ? " with bias" : ""}`;
}
