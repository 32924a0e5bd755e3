// Layer: CUDA kernels. Layouts made simple for a kernel: axes that are one merged, vectors along the innermost axis where memory
// allows them, and the structure that native/kernels/axes.cuh reads.
// Knows layouts. Knows no op.

import { bytesPerElement, type View } from "@diffmamba/tensor";
import { type Argument, addressOf, ints } from "../context.js";

/** Axes that native/kernels/axes.cuh takes. */
const MAX_AXES = 6;

/** Sizes of axes, innermost first, and what each operand steps by along them. There is always at least one axis. */
export interface Axes {
  readonly sizes: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/** Axes of size 1 dropped, and neighbours merged where every operand steps through them as through one axis. */
export function mergeAxes(shape: readonly number[], operands: readonly Pick<View, "strides">[]): Axes {
  const sizes: number[] = [];
  const strides: number[][] = operands.map(() => []);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    const last = sizes.length - 1;
    if (last >= 0 && operands.every((x, i) => x.strides[axis] === strides[i][last] * sizes[last])) {
      sizes[last] *= shape[axis];
      continue;
    }
    sizes.push(shape[axis]);
    for (const [i, x] of operands.entries()) strides[i].push(x.strides[axis]);
  }
  return sizes.length > 0 ? { sizes, strides } : { sizes: [1], strides: operands.map(() => [0]) };
}

/** The product of all sizes. */
export function countOf({ sizes }: Axes): number {
  let count = 1;
  for (const n of sizes) count *= n;
  return count;
}

/** Whether an operand can be taken `width` elements at a time along the innermost axis, or gives one element for all of them. */
function comesInVectors(view: View, width: number, strides: readonly number[], mayRepeat: boolean): boolean {
  if (strides[0] === 0) return mayRepeat;
  const bytes = width * bytesPerElement[view.dtype];
  if (strides[0] !== 1 || addressOf(view) % bytes !== 0) return false;
  for (let i = 1; i < strides.length; i++) if (strides[i] % width !== 0) return false;
  return true;
}

/** How a kernel is to walk: in vectors of `width`, `items` of them. */
export interface Walk {
  readonly axes: Axes;
  readonly width: number;
  readonly items: number;
}

/** The walk over views of one shape, the output first: in vectors of `width` where all of them allow it, else one by one. */
export function walkOf(views: readonly View[], width: number): Walk {
  const axes = mergeAxes(views[0].shape, views);
  const { sizes, strides } = axes;
  const vectors = sizes[0] % width === 0 && views.every((view, i) => comesInVectors(view, width, strides[i], i > 0));
  if (!vectors) return { axes, width: 1, items: countOf(axes) };
  const wide: Axes = {
    sizes: [sizes[0] / width, ...sizes.slice(1)],
    strides: strides.map(([inner, ...outer]) => [inner * width, ...outer]),
  };
  return { axes: wide, width, items: countOf(wide) };
}

/** The structure Axes<OPERANDS>. */
export function axesArgument({ sizes, strides }: Axes): Argument {
  const values: number[] = [sizes.length];
  for (const list of [sizes, ...strides]) for (let axis = 0; axis < MAX_AXES; axis++) values.push(list[axis] ?? 0);
  return ints(values);
}
