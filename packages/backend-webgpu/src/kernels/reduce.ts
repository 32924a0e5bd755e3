// Layer: WebGPU kernels. Reductions, argmax and running sums: how the work is shared out, by sizes alone, so that the order of a sum
// never depends on the device.
// Knows layouts and the shaders' parameters. Knows no formula and no device.

import { type Kernels, type ReduceOp, sizeOf, type View } from "@diffmamba/tensor";
import type { BufferUse, KernelContext } from "../context.js";
import { type Axes, axesArguments, comesInFours, countOf, mergeAxes } from "./axes.js";
import { copyKernels } from "./copy.js";
import { typeConstant } from "./elementwiseForm.js";

/** Threads of a workgroup of these shaders. */
const THREADS = 256;

/** Workgroups that keep the largest devices busy: where there are fewer, results are cut into segments. */
const ENOUGH_GROUPS = 1024;

/** Items that a thread takes at least, of a segment. */
const ITEMS_PER_THREAD = 8;

/** Columns side by side, and threads to each, of reduce-columns.wgsl. */
const TILE = 32;

/** Axes whose elements make one result, and axes that number the results: of `x`, and of `x` and `out`. */
interface Parts {
  readonly kept: Axes;
  readonly along: Axes;
}

/** An operand: where it begins and what it holds. Its axes are told apart from it. */
type Operand = Pick<View, "buffer" | "dtype" | "offset" | "shape" | "strides">;

interface Reduction extends Parts {
  readonly op: ReduceOp;
  readonly x: Operand;
  readonly out: Operand;
}

/** The axes at `numbers`, in order of their steps in memory: results may come, and sums run, in any fixed order. */
function pickAxes(numbers: readonly number[], operands: readonly View[], shape: readonly number[]): Axes {
  const [x] = operands;
  const sorted = [...numbers].sort((a, b) => x.strides[b] - x.strides[a]);
  const pick = (list: readonly number[]) => sorted.map((axis) => list[axis]);
  return mergeAxes(
    pick(shape),
    operands.map((view) => ({ shape: pick(shape), strides: pick(view.strides) })),
  );
}

function separate(x: View, out: View): Parts {
  const numbers = x.shape.map((_, axis) => axis);
  const reduced = numbers.filter((axis) => x.shape[axis] !== out.shape[axis]);
  const rest = numbers.filter((axis) => x.shape[axis] === out.shape[axis]);
  return { kept: pickAxes(rest, [x, out], x.shape), along: pickAxes(reduced, [x], x.shape) };
}

/** Strides, innermost first, of results that lie side by side, `step` apart. */
function denseStrides(sizes: readonly number[], step: number): number[] {
  let next = step;
  return sizes.map((size) => {
    const stride = next;
    next *= size;
    return stride;
  });
}

/** The same axes for operand `i` in units of four elements; its innermost axis is one of them if `counted`. */
function inFours({ sizes, strides }: Axes, i: number, counted: boolean): Axes {
  return {
    sizes: counted ? [sizes[0] / 4, ...sizes.slice(1)] : sizes,
    strides: strides.map((list, k) =>
      k === i ? list.map((stride, axis) => (counted && axis === 0 ? stride : stride / 4)) : list,
    ),
  };
}

/**
 * Threads to a row of `items`: a power of 4. About four items to each, so that neighbours read what lies side by side; sixteen once that
 * is given, so that reading takes longer than joining what threads have.
 */
function lanesFor(items: number): number {
  let lanes = 1;
  while (lanes < THREADS && lanes * (lanes < 16 ? 4 : 16) < items) lanes *= 4;
  return lanes;
}

/** Segments of so many items to each of so many results. */
function segmentsFor(groups: number, items: number, itemsPerSegment: number): { segments: number; length: number } {
  const wanted = Math.ceil(ENOUGH_GROUPS / groups);
  const most = Math.ceil(items / itemsPerSegment);
  const length = Math.ceil(items / Math.max(1, Math.min(wanted, most)));
  return { segments: Math.ceil(items / length), length };
}

/** What both reduction shaders are told of their operand. */
function operandOf(x: Operand, vec: boolean): { use: BufferUse; constants: Record<string, boolean> } {
  return { use: vec ? { view: x, vec: 4 } : x, constants: { ...typeConstant("x", x.dtype), x_vec: vec } };
}

function takesFours(x: Operand): boolean {
  return x.dtype === "f32" || x.dtype === "i32";
}

/** How rows are shared out over threads; also for argmax. */
function shareRows(rows: number, items: number) {
  const lanes = lanesFor(items);
  const perGroup = THREADS / lanes;
  const long = lanes === THREADS;
  const { segments, length } = long
    ? segmentsFor(rows, items, THREADS * ITEMS_PER_THREAD)
    : { segments: 1, length: items };
  return { lanes, segments, length, units: rows * segments, groups: Math.ceil((rows * segments) / perGroup) };
}

function reduceRows(context: KernelContext, { op, x, out, kept, along }: Reduction): void {
  const vec = takesFours(x) && comesInFours(x.offset, along.sizes, [...along.strides[0], ...kept.strides[0]]);
  const results = countOf(kept);
  const items = countOf(along) / (vec ? 4 : 1);
  const { lanes, segments, length, units, groups } = shareRows(results, items);
  const last = segments === 1;
  const to = last ? out : context.temporary([results, segments], out.dtype);
  const targets: Axes = last
    ? kept
    : { sizes: kept.sizes, strides: [kept.strides[0], denseStrides(kept.sizes, segments)] };
  const keptAt = axesArguments("kept", vec ? inFours(targets, 0, false) : targets);
  const alongAt = axesArguments("along", vec ? inFours(along, 0, true) : along);
  const { use, constants } = operandOf(x, vec);
  context.run({
    shader: "reduce-rows",
    constants: { ...constants, ...keptAt.constants, ...alongAt.constants, [`op_${op}`]: true },
    buffers: { x: use, out: to },
    writes: ["out"],
    uniforms: {
      ...keptAt.uniforms,
      ...alongAt.uniforms,
      x_step: 1,
      lanes,
      units,
      segments,
      segment_items: length,
      items,
    },
    groups,
  });
  if (last) return;
  reduceRows(context, {
    op,
    x: to,
    out,
    kept: { sizes: kept.sizes, strides: [denseStrides(kept.sizes, segments), kept.strides[1]] },
    along: { sizes: [segments], strides: [[1]] },
  });
}

/** The axes but the innermost; one of size 1 where there are no others. */
function outerAxes({ sizes, strides }: Axes): Axes {
  if (sizes.length === 1) return { sizes: [1], strides: strides.map(() => [0]) };
  return { sizes: sizes.slice(1), strides: strides.map((list) => list.slice(1)) };
}

function reduceColumns(context: KernelContext, { op, x, out, kept, along }: Reduction): void {
  const vec = takesFours(x) && comesInFours(x.offset, kept.sizes, [...kept.strides[0], ...along.strides[0]]);
  const results = countOf(kept);
  const rows = countOf(along);
  const columns = kept.sizes[0] / (vec ? 4 : 1);
  const tiles = Math.ceil(columns / TILE);
  const blocks = (results / kept.sizes[0]) * tiles;
  const { segments, length } = segmentsFor(blocks, rows, (THREADS / TILE) * ITEMS_PER_THREAD);
  const last = segments === 1;
  const to = last ? out : context.temporary([segments, results], out.dtype);
  const dense = denseStrides(kept.sizes, 1);
  const targets: Axes = last ? kept : { sizes: kept.sizes, strides: [kept.strides[0], dense] };
  const outer = outerAxes(targets);
  const keptAt = axesArguments("kept", vec ? inFours(outer, 0, false) : outer);
  const alongAt = axesArguments("along", vec ? inFours(along, 0, false) : along);
  const { use, constants } = operandOf(x, vec);
  context.run({
    shader: "reduce-columns",
    constants: { ...constants, ...keptAt.constants, ...alongAt.constants, [`op_${op}`]: true },
    buffers: { x: use, out: to },
    writes: ["out"],
    uniforms: {
      ...keptAt.uniforms,
      ...alongAt.uniforms,
      x_step: 1,
      units: blocks * segments,
      tiles,
      columns,
      rows,
      segments,
      segment_rows: length,
      segment_pitch: last ? 0 : results,
      out_step: targets.strides[1][0],
    },
    groups: blocks * segments,
  });
  if (last) return;
  reduceColumns(context, {
    op,
    x: to,
    out,
    kept: { sizes: kept.sizes, strides: [dense, kept.strides[1]] },
    along: { sizes: [segments], strides: [[results]] },
  });
}

function reduceWords(context: KernelContext, op: ReduceOp, x: View, out: View): void {
  const { kept, along } = separate(x, out);
  const sideBySide = kept.sizes[0] > 1 && kept.strides[0][0] === 1 && along.strides[0][0] !== 1;
  (sideBySide ? reduceColumns : reduceRows)(context, { op, x, out, kept, along });
}

/** The axes of a view's lines along `axis`, beside those of `out`. */
function linesOf(axis: number, x: View, outStrides: readonly number[]): Axes {
  const without = (list: readonly number[]) => list.filter((_, i) => i !== axis);
  const shape = without(x.shape);
  return mergeAxes(shape, [
    { shape, strides: without(x.strides) },
    { shape, strides: outStrides },
  ]);
}

function argmaxRows(context: KernelContext, x: View, out: View): void {
  const axis = x.shape.length - 1;
  const [size, step] = [x.shape[axis], x.strides[axis]];
  const kept = linesOf(axis, x, out.strides);
  const vec = takesFours(x) && comesInFours(x.offset, [size], [step, ...kept.strides[0]]);
  const rows = countOf(kept);
  const items = vec ? size / 4 : size;
  const { lanes, segments, length, units, groups } = shareRows(rows, items);
  const last = segments === 1;
  const dense = denseStrides(kept.sizes, segments);
  const targets: Axes = last ? kept : { sizes: kept.sizes, strides: [kept.strides[0], dense] };
  const keptAt = axesArguments("kept", vec ? inFours(targets, 0, false) : targets);
  const { use, constants } = operandOf(x, vec);
  const best = last ? undefined : context.temporary([rows, segments], x.dtype === "f32" ? "f32" : "i32");
  const found = last ? out : context.temporary([rows, segments], "i32");
  context.run({
    shader: "argmax",
    constants: { ...constants, ...keptAt.constants },
    buffers: { x: use, out: found, best },
    writes: last ? ["out"] : ["out", "best"],
    uniforms: { ...keptAt.uniforms, x_step: step, lanes, units, segments, segment_items: length, items },
    groups,
  });
  if (best === undefined) return;
  const joinedAt = axesArguments("kept", { sizes: kept.sizes, strides: [dense, kept.strides[1]] });
  const join = shareRows(rows, segments);
  context.run({
    shader: "argmax",
    constants: { ...typeConstant("x", best.dtype), ...joinedAt.constants },
    buffers: { x: best, found, out },
    writes: ["out"],
    uniforms: {
      ...joinedAt.uniforms,
      x_step: 1,
      lanes: join.lanes,
      units: rows,
      segments: 1,
      segment_items: segments,
      items: segments,
    },
    groups: join.groups,
  });
}

/** Lines up to this length go to one thread each … */
const SHORT_LINE = 32;

/** … and so do lines side by side, from this many on. */
const MANY_LINES = 4096;

function runningSums(context: KernelContext, x: View, out: View, axis: number, reverse: boolean): void {
  const lines = linesOf(
    axis,
    x,
    out.strides.filter((_, i) => i !== axis),
  );
  const count = countOf(lines);
  const size = x.shape[axis];
  const sideBySide = lines.strides[0][0] === 1 && count >= MANY_LINES;
  const alone = size <= SHORT_LINE || sideBySide;
  const lineAt = axesArguments("line", lines);
  context.run({
    shader: alone ? "cumsum-lines" : "cumsum-scan",
    constants: { ...lineAt.constants, reverse },
    buffers: { x, out },
    writes: ["out"],
    uniforms: {
      ...lineAt.uniforms,
      lines: count,
      size,
      x_step: x.strides[axis],
      out_step: out.strides[axis],
      piece: Math.ceil(size / THREADS),
    },
    groups: alone ? Math.ceil(count / THREADS) : count,
  });
}

export const reduceKernels = (context: KernelContext): Pick<Kernels, "reduce" | "argmax" | "cumsum"> => {
  const { copy } = copyKernels(context);
  return {
    reduce(op, x, out) {
      if (sizeOf(out.shape) === 0) return;
      if (sizeOf(x.shape) === sizeOf(out.shape)) {
        copy(x, out);
      } else if (out.dtype === "u8") {
        // Bytes are reduced as i32: a thread must not write a part of a word.
        const wide = context.temporary(out.shape, "i32");
        reduceWords(context, op, x, wide);
        copy(wide, out);
      } else {
        reduceWords(context, op, x, out);
      }
    },
    argmax(x, out) {
      if (sizeOf(out.shape) > 0) argmaxRows(context, x, out);
    },
    cumsum(x, out, { axis, reverse }) {
      if (sizeOf(out.shape) > 0) runningSums(context, x, out, axis, reverse);
    },
  };
};
