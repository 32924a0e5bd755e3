// Layouts: shape, strides and offset in elements, and the arithmetic of views and broadcasting on them.
// Knows no memory, no device and no op.

import { formatShape, ShapeError } from "./errors.js";

/** Where a tensor's elements lie in its buffer; strides and offset count elements. */
export interface Layout {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

/** The product of a shape's sizes; 1 for (). */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}

/** Row-major strides. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** True if the elements lie in row-major order without gaps (axes of size 1 do not matter). */
export function isContiguous({ shape, strides }: Layout): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i];
  }
  return true;
}

/** Throws unless every size is a whole number of at least 0. */
export function checkShape(op: string, shape: readonly number[]): void {
  for (const n of shape) {
    if (!Number.isSafeInteger(n) || n < 0) {
      throw new ShapeError(`${op}: ${formatShape(shape)} is no shape; every size must be a whole number of 0 or more.`);
    }
  }
}

/** An axis counted from the end when negative, as a plain index. */
export function normalizeAxis(op: string, axis: number, rank: number): number {
  const index = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || index < 0 || index >= rank) {
    throw new ShapeError(`${op}: axis ${axis} does not exist; the tensor has ${rank} axes.`);
  }
  return index;
}

/** The common shape by NumPy's rules: aligned at the last axis, sizes equal or 1. */
export function broadcastShapes(op: string, a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 0; i < rank; i++) {
    const m = a[a.length - rank + i] ?? 1;
    const n = b[b.length - rank + i] ?? 1;
    if (m !== n && m !== 1 && n !== 1) {
      throw new ShapeError(
        `${op}: shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast: ${m} against ${n}; sizes must be equal or 1.`,
      );
    }
    out[i] = m === 1 ? n : m;
  }
  return out;
}

/** The layout of `layout` seen with `shape`: repeated axes get stride 0. `shape` must be a broadcast of it. */
export function broadcastTo(op: string, layout: Layout, shape: readonly number[]): Layout {
  const lead = shape.length - layout.shape.length;
  if (lead < 0) throw new ShapeError(`${op}: ${formatShape(layout.shape)} has more axes than ${formatShape(shape)}.`);
  const strides = shape.map((n, i) => {
    if (i < lead) return 0;
    const m = layout.shape[i - lead];
    if (m !== n && m !== 1) {
      throw new ShapeError(`${op}: ${formatShape(layout.shape)} does not broadcast to ${formatShape(shape)}.`);
    }
    return m === n ? layout.strides[i - lead] : 0;
  });
  return { shape, strides, offset: layout.offset };
}

/** Strides that show `layout` as `shape` without a copy, or undefined where no strides can. Sizes must agree. */
export function reshapeStrides(layout: Layout, shape: readonly number[]): number[] | undefined {
  if (sizeOf(shape) === 0) return contiguousStrides(shape);
  const old = layout.shape.map((n, i) => ({ n, stride: layout.strides[i] })).filter(({ n }) => n !== 1);
  const strides = new Array<number>(shape.length).fill(1);
  let i = 0;
  let j = 0;
  // Walk both shapes at once; each round matches the shortest runs of axes with the same number of elements.
  while (i < old.length && j < shape.length) {
    let iEnd = i + 1;
    let jEnd = j + 1;
    let oldRun = old[i].n;
    let newRun = shape[j];
    while (oldRun !== newRun) {
      if (newRun < oldRun) newRun *= shape[jEnd++];
      else oldRun *= old[iEnd++].n;
    }
    for (let k = i; k < iEnd - 1; k++) {
      if (old[k].stride !== old[k + 1].n * old[k + 1].stride) return undefined;
    }
    let step = old[iEnd - 1].stride;
    for (let k = jEnd - 1; k >= j; k--) {
      strides[k] = step;
      step *= shape[k];
    }
    i = iEnd;
    j = jEnd;
  }
  return strides;
}

/**
 * Rows of `inner` trailing axes: true if those are contiguous and the leading axes are stepped through by one pitch,
 * so that row r of the flattened leading axes starts at `offset + r * pitch`. A slice of a packed projection is.
 */
export function rowPitch({ shape, strides }: Layout, inner: number): number | undefined {
  const lead = shape.length - inner;
  let step = 1;
  for (let i = shape.length - 1; i >= lead; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return undefined;
    step *= shape[i];
  }
  let pitch: number | undefined;
  let rows = 1;
  for (let i = lead - 1; i >= 0; i--) {
    if (shape[i] === 1) continue;
    if (pitch === undefined) pitch = strides[i];
    else if (strides[i] !== pitch * rows) return undefined;
    rows *= shape[i];
  }
  return pitch ?? step;
}
