// Views: other shapes, orders and parts of the same memory. Nothing is copied, but by reshape where strides cannot tell it.
// Knows layouts and gradients. Knows no kernel.

import { formatShape, ShapeError } from "../errors.js";
import { broadcastTo, checkShape, normalizeAxis, reshapeStrides, sizeOf } from "../layout.js";
import { allTypes, type OpSpec, sameDevice, sameType } from "../op.js";
import { record, recordReshape, recordSplit } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { contiguousCopy } from "./copy.js";
import { sumTo } from "./reduce.js";

function resolveShape(x: Tensor, shape: readonly number[]): number[] {
  const unknown = shape.indexOf(-1);
  const known = sizeOf(shape.filter((n) => n !== -1));
  const resolved = shape.map((n, i) => (i === unknown && known > 0 ? x.size / known : n));
  if (shape.lastIndexOf(-1) !== unknown || resolved.some((n) => !Number.isInteger(n)) || sizeOf(resolved) !== x.size) {
    throw new ShapeError(
      `reshape: ${formatShape(x.shape)} has ${x.size} elements; ${formatShape(shape)} cannot hold them.`,
    );
  }
  checkShape("reshape", resolved);
  return resolved;
}

/** The same elements in row-major order with another shape; one size may be -1. */
export function reshape(x: Tensor, to: readonly number[]): Tensor {
  const shape = resolveShape(x, to);
  const strides = reshapeStrides(x, shape);
  let out: Tensor;
  if (strides !== undefined) {
    out = x.withLayout({ shape, strides, offset: x.offset });
  } else {
    const whole = contiguousCopy(x);
    out = whole.withLayout({ shape, strides: reshapeStrides(whole, shape) ?? [], offset: 0 });
    whole.dispose();
  }
  recordReshape(x, out);
  return out;
}

/** The axes in another order. */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const order = axes.map((axis) => normalizeAxis("permute", axis, x.rank));
  if (order.length !== x.rank || new Set(order).size !== x.rank) {
    throw new ShapeError(`permute: [${axes.join(", ")}] is no order of the axes of ${formatShape(x.shape)}.`);
  }
  const out = x.withLayout({
    shape: order.map((axis) => x.shape[axis]),
    strides: order.map((axis) => x.strides[axis]),
    offset: x.offset,
  });
  const inverse = order.map((_, i) => order.indexOf(i));
  record({ name: "permute", inputs: [x], outputs: [out], backward: ([dy]) => [dy && permute(dy, inverse)] });
  return out;
}

/** Two axes swapped. */
export function transpose(x: Tensor, a: number, b: number): Tensor {
  const [i, j] = [normalizeAxis("transpose", a, x.rank), normalizeAxis("transpose", b, x.rank)];
  return permute(
    x,
    x.shape.map((_, k) => (k === i ? j : k === j ? i : k)),
  );
}

/** Elements `start` up to `end` (its size by default) of an axis. */
export function slice(x: Tensor, axis: number, start: number, end?: number): Tensor {
  const along = normalizeAxis("slice", axis, x.rank);
  const stop = end ?? x.shape[along];
  if (!Number.isInteger(start) || !Number.isInteger(stop) || start < 0 || stop < start || stop > x.shape[along]) {
    throw new ShapeError(`slice: ${start} to ${stop} is no part of axis ${along} of ${formatShape(x.shape)}.`);
  }
  const out = x.withLayout({
    shape: x.shape.map((n, i) => (i === along ? stop - start : n)),
    strides: x.strides,
    offset: x.offset + start * x.strides[along],
  });
  const { shape, device, dtype } = x;
  record({
    name: "slice",
    inputs: [x],
    outputs: [out],
    backward: ([dy]) => {
      if (dy === undefined) return [];
      const dx = device.zeros(shape, dtype);
      slice(dx, along, start, stop).assign(dy);
      return [dx];
    },
  });
  return out;
}

/** Views side by side along an axis. Their gradients share one packed tensor, which routines write into directly. */
export function split(x: Tensor, sizes: readonly number[], axis: number): Tensor[] {
  const along = normalizeAxis("split", axis, x.rank);
  const total = sizes.reduce((a, b) => a + b, 0);
  if (total !== x.shape[along]) {
    throw new ShapeError(
      `split: the sizes ${sizes.join(" + ")} give ${total}, but axis ${along} of ${formatShape(x.shape)} has ${x.shape[along]}.`,
    );
  }
  checkShape("split", sizes);
  let start = 0;
  const parts = sizes.map((size) => {
    const shape = x.shape.map((n, i) => (i === along ? size : n));
    const part = x.withLayout({ shape, strides: x.strides, offset: x.offset + start * x.strides[along] });
    start += size;
    return part;
  });
  recordSplit(x, parts, along);
  return parts;
}

/** Repeats axes of size 1 and adds leading ones: stride 0. */
export function expand(x: Tensor, shape: readonly number[]): Tensor {
  const out = x.withLayout(broadcastTo("expand", x, shape));
  const before = x.shape;
  record({ name: "expand", inputs: [x], outputs: [out], backward: ([dy]) => [dy && sumTo(dy, before)] });
  return out;
}

/** Tensors one after another along an axis; the other sizes must agree. A copy. */
export function concat(tensors: readonly Tensor[], axis = -1): Tensor {
  const [first, ...others] = tensors;
  if (first === undefined) throw new ShapeError("concat: there are no tensors.");
  sameDevice("concat", first, ...others);
  const along = normalizeAxis("concat", axis, first.rank);
  for (const other of others) {
    sameType("concat", first, other);
    if (other.rank !== first.rank || other.shape.some((n, i) => i !== along && n !== first.shape[i])) {
      throw new ShapeError(
        `concat: ${formatShape(first.shape)} and ${formatShape(other.shape)} differ in another axis than ${along}.`,
      );
    }
  }
  const sizes = tensors.map((t) => t.shape[along]);
  const total = sizes.reduce((a, b) => a + b, 0);
  const out = first.device.empty(
    first.shape.map((n, i) => (i === along ? total : n)),
    first.dtype,
  );
  let start = 0;
  for (const t of tensors) {
    const { strides, dtype, buffer } = out.view();
    const place = { buffer, dtype, strides, shape: t.shape, offset: start * strides[along] };
    if (t.size > 0) first.device.backend.kernels.copy(t.view(), place);
    start += t.shape[along];
  }
  record({
    name: "concat",
    inputs: tensors,
    outputs: [out],
    backward: ([dy]) => (dy === undefined ? [] : split(dy, sizes, along)),
  });
  return out;
}

const views = ["reshape", "permute", "slice", "split", "expand", "concat"];

export const specs: readonly OpSpec[] = views.map((name) => {
  return { name, kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: ["x"], saves: "nothing" };
});
