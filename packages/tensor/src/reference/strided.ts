// Layer: reference backend. Walks several strided operands of one shape at once, run by run.
// Knows layouts. Knows no memory and no op.

import { bytesPerElement, type TypedArray, typedArray } from "../dtype.js";
import { BackendError } from "../errors.js";
import type { Layout } from "../layout.js";
import type { View } from "../view.js";
import { ReferenceBuffer } from "./buffer.js";

/** The whole buffer of a view in its element type; the view's first element is at `view.offset`. */
export function elements(view: View): TypedArray {
  if (!(view.buffer instanceof ReferenceBuffer)) {
    throw new BackendError(
      "reference: got a view of another backend's memory; copy the tensor to the reference first.",
    );
  }
  const { memory } = view.buffer;
  return typedArray(view.dtype, memory, 0, Math.floor(memory.byteLength / bytesPerElement[view.dtype]));
}

/** Axes of size 1 dropped and neighbours merged where all operands step through them as through one axis. */
function mergeAxes(shape: readonly number[], operands: readonly Layout[]): { shape: number[]; strides: number[][] } {
  const merged: number[] = [];
  const strides: number[][] = operands.map(() => []);
  for (let axis = 0; axis < shape.length; axis++) {
    if (shape[axis] === 1) continue;
    const last = merged.length - 1;
    const joins = last >= 0 && operands.every((x, i) => strides[i][last] === x.strides[axis] * shape[axis]);
    if (joins) {
      merged[last] *= shape[axis];
      for (const [i, x] of operands.entries()) strides[i][last] = x.strides[axis];
    } else {
      merged.push(shape[axis]);
      for (const [i, x] of operands.entries()) strides[i].push(x.strides[axis]);
    }
  }
  return { shape: merged, strides };
}

/**
 * Calls `run(at, steps, n)` for every run of `n` elements along the innermost axis: operand i has its elements at
 * `at[i] + k * steps[i]`. The arrays are reused between calls. All operands are seen with `shape`.
 */
export function eachRun(
  shape: readonly number[],
  operands: readonly Layout[],
  run: (at: readonly number[], steps: readonly number[], n: number) => void,
): void {
  const { shape: outer, strides } = mergeAxes(shape, operands);
  const n = outer.pop() ?? 1;
  const steps = strides.map((list) => list.pop() ?? 0);
  const at = operands.map((x) => x.offset);
  const index = outer.map(() => 0);
  while (true) {
    run(at, steps, n);
    let axis = outer.length - 1;
    for (; axis >= 0; axis--) {
      for (let i = 0; i < at.length; i++) at[i] += strides[i][axis];
      if (++index[axis] < outer[axis]) break;
      for (let i = 0; i < at.length; i++) at[i] -= strides[i][axis] * outer[axis];
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}
