// Layer: CUDA kernels. reduce, argmax and cumsum: how the elements of an output are shared out, which follows from sizes alone.
// Knows layouts and native/kernels/reduce.cu. Knows no device.

import { type Kernels, type ReduceOp, sizeOf, type View } from "@diffmamba/tensor";
import { i32, type KernelContext, pointer } from "../context.js";
import { type Axes, axesArgument, countOf, mergeAxes } from "./axes.js";

const THREADS = 256;
/** Outputs beside which each output's elements need not be shared by several blocks. */
const ENOUGH_OUTPUTS = 4096;
/** Elements of an output that a block takes at least. */
const SEGMENT = 1024;
const MOST_SEGMENTS = 256;

/** The axes of x that stay, and those that are reduced. */
function separate(x: View, out: View): { readonly kept: Axes; readonly reduced: Axes } {
  const pick = (wanted: boolean) => {
    const axes = x.shape.map((_, i) => i).filter((i) => (out.shape[i] === 1 && x.shape[i] !== 1) === wanted);
    return mergeAxes(
      axes.map((i) => x.shape[i]),
      [{ strides: axes.map((i) => x.strides[i]) }],
    );
  };
  return { kept: pick(false), reduced: pick(true) };
}

/** Segments of the elements of each output, that other blocks take. */
export function segmentsFor(outputs: number, count: number): number {
  const wanted = Math.ceil(ENOUGH_OUTPUTS / outputs);
  return Math.max(1, Math.min(wanted, Math.floor(count / SEGMENT), MOST_SEGMENTS));
}

/** Threads that take an output's elements together: no more than have work. */
export function teamFor(count: number): number {
  let team = 1;
  while (team < 32 && team < count) team *= 2;
  return count > 32 * 16 ? THREADS : team;
}

export const reduceKernels = (context: KernelContext): Pick<Kernels, "reduce" | "argmax" | "cumsum"> => {
  const pass = (
    op: ReduceOp,
    suffix: string,
    x: View,
    out: View,
    kept: Axes,
    reduced: Axes,
    segments: number,
  ): void => {
    const outputs = countOf(kept);
    const count = countOf(reduced);
    const segment = Math.ceil(count / segments);
    // Threads of a warp read what lies side by side.
    const columns = outputs > 1 && kept.strides[0][0] < reduced.strides[0][0];
    const team = teamFor(segment);
    context.launch({
      kernel: `${op}_${columns ? "columns" : "rows"}_${suffix}`,
      grid: [Math.ceil(outputs / (columns ? 32 : THREADS / team)), segments],
      block: columns ? [32, 8] : THREADS,
      args: [
        pointer(x),
        pointer(out),
        axesArgument(kept),
        axesArgument(reduced),
        i32(outputs),
        i32(count),
        i32(segment),
        ...(columns ? [] : [i32(team)]),
      ],
    });
  };

  return {
    reduce: (op, x, out) => {
      const { kept, reduced } = separate(x, out);
      const outputs = countOf(kept);
      const segments = segmentsFor(outputs, countOf(reduced));
      if (segments === 1) return pass(op, x.dtype, x, out, kept, reduced, 1);
      const wide = x.dtype === "i32" || x.dtype === "u8" ? "i32" : "f32";
      const parts = context.temporary([segments, outputs], wide);
      pass(op, `${x.dtype}_part`, x, parts, kept, reduced, segments);
      const across: Axes = { sizes: [outputs], strides: [[1]] };
      const down: Axes = { sizes: [segments], strides: [[outputs]] };
      pass(op, `${x.dtype}_whole`, parts, out, across, down, 1);
    },
    argmax: (x, out) => {
      const axis = x.shape.length - 1;
      const lines = mergeAxes(out.shape, [out, { strides: x.strides.slice(0, axis) }]);
      const size = x.shape[axis];
      context.launch({
        kernel: `argmax_${x.dtype}`,
        grid: countOf(lines),
        block: size > 4096 ? 1024 : size > 128 ? 256 : 32,
        args: [pointer(x), pointer(out), axesArgument(lines), i32(size), i32(x.strides[axis])],
      });
    },
    cumsum: (x, out, { axis, reverse }) => {
      const without = (list: readonly number[]) => list.filter((_, i) => i !== axis);
      const lines = mergeAxes(without(x.shape), [{ strides: without(out.strides) }, { strides: without(x.strides) }]);
      const size = x.shape[axis];
      if (sizeOf(x.shape) === 0) return;
      context.launch({
        kernel: `cumsum_${x.dtype}`,
        grid: countOf(lines),
        block: size > 512 ? 512 : 32 * Math.ceil(size / 32),
        args: [
          pointer(x),
          pointer(out),
          axesArgument(lines),
          i32(size),
          i32(x.strides[axis]),
          i32(out.strides[axis]),
          i32(reverse),
        ],
      });
    },
  };
};
