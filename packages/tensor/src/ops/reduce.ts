// Reductions over axes, running sums, and the sum that undoes broadcasting in gradients.
// Knows shapes and gradients. Knows no loop.

import type { ReduceOp } from "../backend.js";
import { ShapeError } from "../errors.js";
import { contiguousStrides, normalizeAxis, sizeOf } from "../layout.js";
import { allTypes, floats, needsFloat, type OpSpec, viewAs } from "../op.js";
import { record } from "../tape.js";
import type { Tensor } from "../tensor.js";

function axesOf(op: string, x: Tensor, axes: number | readonly number[] | undefined): Set<number> {
  if (axes === undefined) return new Set(x.shape.keys());
  return new Set((typeof axes === "number" ? [axes] : axes).map((axis) => normalizeAxis(op, axis, x.rank)));
}

/** Runs the kernel; the result's axes of size 1 are kept or dropped. */
function reduce(op: ReduceOp, x: Tensor, axes: ReadonlySet<number>, keepDims: boolean): Tensor {
  const kept = x.shape.map((n, i) => (axes.has(i) ? 1 : n));
  const shape = keepDims ? kept : x.shape.filter((_, i) => !axes.has(i));
  const out = x.device.empty(shape, x.dtype);
  if (out.size === 0) return out;
  if (x.size === 0 && op === "max") throw new ShapeError("max: there is no greatest of no elements.");
  if (x.size === 0) {
    out.fillInPlace(0);
    return out;
  }
  x.device.backend.kernels.reduce(op, x.view(), viewAs(out.view(), kept, contiguousStrides(kept)));
  return out;
}

/** Sum over the axes given (all by default). */
export function sum(x: Tensor, axes?: number | readonly number[], keepDims = false): Tensor {
  const over = axesOf("sum", x, axes);
  const out = reduce("sum", x, over, keepDims);
  const shape = x.shape;
  const kept = shape.map((n, i) => (over.has(i) ? 1 : n));
  record({
    name: "sum",
    inputs: [x],
    outputs: [out],
    backward: ([dy]) => [dy?.reshape(...kept).expand(...shape)],
  });
  return out;
}

/** Mean over the axes given (all by default). */
export function mean(x: Tensor, axes?: number | readonly number[], keepDims = false): Tensor {
  needsFloat("mean", x);
  const over = axesOf("mean", x, axes);
  const count = sizeOf(x.shape.filter((_, i) => over.has(i)));
  if (count === 0) throw new ShapeError("mean: there is no mean of no elements.");
  return sum(x, [...over], keepDims).mul(1 / count);
}

/** Greatest element over the axes given (all by default). The gradient goes to all elements equal to it. */
export function max(x: Tensor, axes?: number | readonly number[], keepDims = false): Tensor {
  const over = axesOf("max", x, axes);
  const out = reduce("max", x, over, keepDims);
  const kept = x.shape.map((n, i) => (over.has(i) ? 1 : n));
  record({
    name: "max",
    inputs: [x],
    outputs: [out],
    save: [x, out],
    backward: ([dy], [values, greatest]) => {
      if (dy === undefined) return [];
      const isGreatest = values.equal(greatest.reshape(...kept));
      return [isGreatest.where(dy.reshape(...kept), dy.device.zeros([], dy.dtype))];
    },
  });
  return out;
}

/** i32 index of the first greatest element of the last axis: (..., N) -> (...). */
export function argmax(x: Tensor): Tensor {
  if (x.rank === 0 || x.dim(-1) === 0) throw new ShapeError("argmax: there is no greatest of no elements.");
  const out = x.device.empty(x.shape.slice(0, -1), "i32");
  if (out.size > 0) x.device.backend.kernels.argmax(x.view(), out.view());
  return out;
}

/** Running sum along an axis; from its end with `reverse`. */
export function cumsum(x: Tensor, axis = -1, reverse = false): Tensor {
  const along = normalizeAxis("cumsum", axis, x.rank);
  const out = x.device.empty(x.shape, x.dtype);
  if (x.size > 0) x.device.backend.kernels.cumsum(x.view(), out.view(), { axis: along, reverse });
  record({
    name: "cumsum",
    inputs: [x],
    outputs: [out],
    backward: ([dy]) => [dy && cumsum(dy, along, !reverse)],
  });
  return out;
}

/** Sums a gradient over the axes that broadcasting repeated, back to `shape`. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const lead = x.rank - shape.length;
  const over = x.shape.map((_, i) => i).filter((i) => i < lead || (shape[i - lead] === 1 && x.shape[i] !== 1));
  return over.length === 0 ? x : sum(x, over).reshape(...shape);
}

export const specs: readonly OpSpec[] = [
  { name: "sum", kind: "primitive", dtypes: allTypes, accumulates: "f32", gradients: ["x"], saves: "nothing" },
  { name: "reduceMax", kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: ["x"], saves: "x, y" },
  { name: "argmax", kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: [], saves: "nothing" },
  { name: "cumsum", kind: "primitive", dtypes: floats, accumulates: "f32", gradients: ["x"], saves: "nothing" },
];
