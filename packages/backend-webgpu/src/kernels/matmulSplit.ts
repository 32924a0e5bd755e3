// Layer: WebGPU kernels. The product of matrices of f32 on a GPU's matrix units, which multiply f16: each element times a power of two is
// the sum of two f16, and three products of these sum up to nearly all that f32 would keep. Which products it takes, and its dispatches.
// Knows views and the kernel context. Knows no device.

import type { View } from "@diffmamba/tensor";
import type { KernelContext, KernelLimits } from "../context.js";
import { type ProductSize, type Split, splitAlong } from "./matmulPlan.js";
import { BLOCK, BLOCK_HALVES, SPLIT_BYTES, splitShaders, THREADS, TILE } from "./matmulSplitShader.js";
import type { MatrixOperand } from "./matmulSubgroup.js";
import { joiningConstants } from "./rows.js";

/** Parts of an operand whose largest element is found by itself. */
const PARTS = 512;

/** An operand as {@link splitProduct} sees it: its outer axis is the one that the product keeps. */
export interface SplitOperand extends MatrixOperand {
  readonly outer: number;
  readonly inner: number;
}

export interface SplitProduct {
  readonly a: SplitOperand;
  readonly b: SplitOperand;
  /** (batch, rows, columns) f32, its columns contiguous. */
  readonly out: View;
  readonly depth: number;
  readonly accumulate: boolean;
}

/**
 * Whether units and their passes over the operands take less time than multiply-adds: they save about as much on each element of the
 * product and step of k as 1/200 of what an element of an operand costs.
 */
export function pays({ batch, rows, columns, depth }: ProductSize): boolean {
  return depth >= 64 && rows * columns >= 200 * (rows + columns) && batch * rows * columns * depth >= 2 ** 28;
}

/** Whether an operand's lines begin and end at multiples of 16 bytes. */
function inVectors({ view, contiguous, outer, inner, pitch, batchStride }: SplitOperand): boolean {
  const length = contiguous === "inner" ? inner : outer;
  return view.dtype === "f32" && (view.offset | pitch | batchStride | length) % 4 === 0;
}

function hasUnits({ splitProducts, workgroupBytes, workgroupSize }: KernelLimits): boolean {
  return splitProducts && workgroupBytes >= SPLIT_BYTES && workgroupSize >= THREADS;
}

/** Whether the device's units take a product. Follows from sizes, layouts and the device alone. */
export function takesSplit({ limits }: KernelContext, { a, b, out, depth }: SplitProduct): boolean {
  if (!hasUnits(limits)) return false;
  const [batch, rows, columns] = out.shape;
  return pays({ batch, rows, columns, depth }) && inVectors(a) && inVectors(b) && out.dtype === "f32";
}

/** An operand as blocks of halves, along k. */
interface Halves {
  /** (batch, blocks of the outer axis, blocks along k, {@link BLOCK_HALVES}) f16. */
  readonly blocks: View;
  readonly exponent: View;
}

/** Splits an operand into temporaries: the blocks, and the exponent that its scale is made of. */
export function halvesOf(context: KernelContext, operand: SplitOperand): Halves {
  const { view, contiguous, outer, inner, pitch, batchStride } = operand;
  const turned = contiguous === "outer";
  const [lines, length] = turned ? [inner, outer] : [outer, inner];
  // A matrix that all share is split once.
  const batch = batchStride > 0 ? view.shape[0] : 1;
  const blocks = context.temporary([batch, Math.ceil(outer / BLOCK), Math.ceil(inner / BLOCK), BLOCK_HALVES], "f16");
  const largest = context.temporary([PARTS], "i32");
  const exponent = context.temporary([1], "i32");
  const x = { view, vec: 4 } as const;
  const constants = { ...joiningConstants(context), PARTS };
  const vectors = length / 4;
  const lined = { lines, vectors, x_pitch: pitch / 4, x_batch: batchStride / 4 };
  context.run({
    shader: "matmul-split-largest",
    constants,
    buffers: { x, largest },
    writes: ["largest"],
    uniforms: { ...lined, size: batch * lines * vectors },
    groups: PARTS,
  });
  const [down, across] = [Math.ceil(lines / BLOCK), Math.ceil(length / BLOCK)];
  context.run({
    shader: "matmul-split-halves",
    constants: { ...constants, turned },
    buffers: { x, largest, exponent, out: { view: blocks, vec: 4 } },
    writes: ["exponent", "out"],
    uniforms: { ...lined, batch, blocks_down: down, blocks_across: across },
    groups: batch * down * Math.ceil(across / 8),
  });
  return { blocks, exponent };
}

/** Blocks along the outer axis. */
const blocksAcross = ({ blocks }: Halves): number => blocks.shape[1];

/** How a product is cut along k: parts of a sum are written and read again, which costs as much as some steps of k. */
export function planSplit(size: ProductSize): Split {
  return splitAlong(size, { written: 200, most: 16 });
}

/**
 * to (+)= a x b, of a product that {@link takesSplit}, where it is cut into `splits` parts of k the parts of each matrix one after another.
 * @param to (batch x splits, rows, columns), its columns contiguous
 */
export function splitProduct(
  context: KernelContext,
  { a, b, out, depth, accumulate }: SplitProduct,
  to: View,
  split: Split,
): void {
  const [batch, rows, columns] = out.shape;
  const { splits, chunk } = split;
  const [left, right] = [halvesOf(context, a), halvesOf(context, b)];
  const [down, across] = [Math.ceil(rows / TILE), Math.ceil(columns / TILE)];
  const slices = batch * splits;
  context.run({
    shader: splitShaders[accumulate ? "add" : "write"],
    buffers: {
      a: { view: left.blocks, vec: 4 },
      b: { view: right.blocks, vec: 4 },
      a_exponent: left.exponent,
      b_exponent: right.exponent,
      out: to,
    },
    writes: ["out"],
    uniforms: {
      ...{ rows, columns, slices, splits, tiles_m: down, tiles_n: across },
      ...{ steps: Math.ceil(depth / BLOCK), chunk: Math.ceil(chunk / BLOCK) },
      ...{ a_last: blocksAcross(left) - 1, a_batch: a.batchStride > 0 ? blocksAcross(left) : 0 },
      ...{ b_last: blocksAcross(right) - 1, b_batch: b.batchStride > 0 ? blocksAcross(right) : 0 },
      ...{ out_pitch: rows > 1 ? to.strides[1] : 0, out_slice: slices > 1 ? to.strides[0] : 0 },
    },
    groups: slices * down * across,
  });
}
