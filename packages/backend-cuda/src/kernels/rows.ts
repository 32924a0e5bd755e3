// Layer: CUDA kernels. What the routines over rows share: pitches, the widest vectors that all rows allow, how many threads take a row
// together, and the sum of what blocks have summed in part.
// Knows layouts. Knows no formula.

import {
  BackendError,
  bytesPerElement,
  formatShape,
  isContiguous,
  rowPitch,
  sizeOf,
  type View,
} from "@diffmamba/tensor";
import { type Argument, i32, i64, isAligned, type KernelContext, pointer } from "../context.js";
import { elementwiseKernels } from "./elementwise.js";

/** Threads of a block of these kernels: kThreads of native/kernels/norm_rows.cuh. */
export const THREADS = 256;

/** Blocks that leave a row of sums in part each, at most: enough for the largest device, and little beside what they are sums of. */
const MOST_BLOCKS = 528;
/** Rows to each team of them, at least. */
const ROWS_PER_TEAM = 2;

/** Elements from one row of the last axis to the next. @throws BackendError where no one pitch leads from row to row */
export function pitchOf(name: string, view: View): number {
  const pitch = rowPitch(view, 1);
  if (pitch !== undefined) return pitch;
  throw new BackendError(
    `cuda: ${name} ${formatShape(view.shape)} has strides ${formatShape(view.strides)}; its last axis must be contiguous and the ` +
      "others step by one pitch. Make it contiguous first.",
  );
}

/** {@link pitchOf} as an argument; 0 for a view that is absent. */
export function pitchArgument(name: string, view: View | undefined): Argument {
  return i64(view === undefined ? 0 : pitchOf(name, view));
}

/** `width` where every row and every piece of `size` elements of it can be read in vectors of so many elements, else 1. */
export function vectorFor(width: number, size: number, views: readonly (View | undefined)[]): number {
  const fits = views.every((view) => {
    if (view === undefined) return true;
    const pitch = view.shape.length < 2 ? 0 : (rowPitch(view, 1) ?? 1);
    return isAligned(view, width * bytesPerElement[view.dtype], pitch);
  });
  return size % width === 0 && fits ? width : 1;
}

/** The types in the name of a token's scan: that of what comes in and, where it is of 16 bits, that of the state. */
export const typesOf = (x: View, state: View): string =>
  state.dtype === "f32" ? x.dtype : `${x.dtype}_state_${state.dtype}`;

/** Threads that take a row of so many vectors: whole warps, so that each thread has no more than `held` of them where that can be. */
export function teamFor(vectors: number, held: number): number {
  let team = 32;
  while (team < THREADS && held * team < vectors) team *= 2;
  return team;
}

/** Blocks for the rows of a gradient whose sums are left in part. */
export function partBlocks(rows: number, team: number): number {
  return Math.max(1, Math.min(MOST_BLOCKS, Math.ceil((rows * team) / THREADS / ROWS_PER_TEAM)));
}

/** out = the sum of the rows of `parts` (rows, pitch), of the columns from `from` on. */
export function sumParts(context: KernelContext, parts: View, from: number, out: View): void {
  const [rows, pitch] = parts.shape;
  const columns = sizeOf(out.shape);
  context.launch({
    kernel: `sum_parts_${out.dtype}`,
    grid: Math.ceil(columns / 32),
    block: [32, 32],
    args: [pointer({ ...parts, offset: parts.offset + from }), pointer(out), i32(rows), i32(pitch), i32(columns)],
  });
}

/** Enqueues zeros for rows of any pitch. */
export function clearRows(context: KernelContext, view: View): void {
  if (isContiguous(view)) context.clear(view);
  else elementwiseKernels(context).fill(view, 0);
}
