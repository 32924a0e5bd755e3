// Layer: reference backend. Reductions, running sums, argmax: in order, in doubles, rounded once.
// Knows strided memory. Knows no shape rule and no gradient.

import type { ReduceOp } from "../backend.js";
import { contiguousStrides, sizeOf } from "../layout.js";
import type { View } from "../view.js";
import { eachRun, elements } from "./strided.js";

export function reduce(op: ReduceOp, x: View, out: View): void {
  const from = elements(x);
  const results = new Float64Array(sizeOf(out.shape)).fill(op === "sum" ? 0 : Number.NEGATIVE_INFINITY);
  const dense = contiguousStrides(out.shape);
  const strides = dense.map((stride, i) => (out.shape[i] === 1 ? 0 : stride));
  const target = { shape: x.shape, strides, offset: 0 };
  eachRun(x.shape, [x, target], ([i, o], [di, dO], n) => {
    if (op === "sum") for (let k = 0; k < n; k++) results[o + k * dO] += from[i + k * di];
    else {
      for (let k = 0; k < n; k++) {
        const value = from[i + k * di];
        // NaN counts as greatest: it must not get lost.
        if (value > results[o + k * dO] || Number.isNaN(value)) results[o + k * dO] = value;
      }
    }
  });
  const to = elements(out);
  eachRun(out.shape, [{ shape: out.shape, strides: dense, offset: 0 }, out], ([i, o], [di, dO], n) => {
    for (let k = 0; k < n; k++) to[o + k * dO] = results[i + k * di];
  });
}

/** The layout of a view without one axis: where each line along it begins. */
function linesOf(view: View, axis: number): View {
  const without = (list: readonly number[]) => list.filter((_, i) => i !== axis);
  return { ...view, shape: without(view.shape), strides: without(view.strides) };
}

export function argmax(x: View, out: View): void {
  const axis = x.shape.length - 1;
  const [size, step] = [x.shape[axis], x.strides[axis]];
  const [from, to] = [elements(x), elements(out)];
  eachRun(out.shape, [linesOf(x, axis), out], ([i, o], [di, dO], n) => {
    for (let k = 0; k < n; k++) {
      const start = i + k * di;
      let best = 0;
      for (let j = 1; j < size; j++) if (from[start + j * step] > from[start + best * step]) best = j;
      to[o + k * dO] = best;
    }
  });
}

export function cumsum(x: View, out: View, { axis, reverse }: { axis: number; reverse: boolean }): void {
  const size = x.shape[axis];
  const [stepIn, stepOut] = [x.strides[axis], out.strides[axis]];
  const [from, to] = [elements(x), elements(out)];
  const lines = linesOf(out, axis);
  eachRun(lines.shape, [linesOf(x, axis), lines], ([i, o], [di, dO], n) => {
    for (let k = 0; k < n; k++) {
      let sum = 0;
      for (let j = 0; j < size; j++) {
        const t = reverse ? size - 1 - j : j;
        sum += from[i + k * di + t * stepIn];
        to[o + k * dO + t * stepOut] = sum;
      }
    }
  });
}
