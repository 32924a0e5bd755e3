// Layer: WebGPU kernels. Rows by index, their scattered sum in a fixed order, and counting up.
// Knows layouts and the shaders' parameters. Knows no formula and no device.

import { bytesPerElement, type DType, isFloat, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { BufferUse, KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { asBits, typeConstant } from "./elementwiseForm.js";

const THREADS = 256;

/** Rows of the table that a workgroup of scatter-sort.wgsl takes. */
const SORTED_ROWS = 64;

/** NaN as a word of elements of each type; integers have none, and get 0. */
const missingWords: Readonly<Record<DType, number>> = {
  f32: 0x7fc00000,
  f64: 0,
  bf16: 0x7fc07fc0,
  f16: 0x7e007e00,
  i32: 0,
  u8: 0,
};

/** A contiguous (rows, columns) view as whole words, or undefined where its rows are not made of such. */
function asWords(view: View): View | undefined {
  const perWord = 4 / bytesPerElement[view.dtype];
  if (perWord === 1) return asBits(view);
  const [rows, columns] = view.shape;
  if (columns % perWord !== 0 || view.offset % perWord !== 0) return undefined;
  const words = columns / perWord;
  return { ...view, dtype: "i32", shape: [rows, words], strides: [words, 1], offset: view.offset / perWord };
}

/** Whether contiguous rows of words can be taken four words at a time. */
function inFours(...views: readonly View[]): boolean {
  return views.every((view) => view.shape[1] % 4 === 0 && view.offset % 4 === 0);
}

function use(view: View, vec: boolean): BufferUse {
  return vec ? { view, vec: 4 } : view;
}

function gatherWords(context: KernelContext, table: View, index: View, out: View, missing: number): void {
  const vec = inFours(table, out);
  const columns = table.shape[1] / (vec ? 4 : 1);
  const items = index.shape[0] * columns;
  context.run({
    shader: "gather",
    constants: { out_vec: vec },
    buffers: { table: use(table, vec), index, out: use(out, vec) },
    writes: ["out"],
    uniforms: { items, columns, rows: table.shape[0], missing },
    groups: Math.ceil(items / THREADS),
  });
}

function gatherPacked(context: KernelContext, table: View, index: View, out: View): void {
  const elements = sizeOf(out.shape);
  const items = Math.ceil((elements * bytesPerElement[out.dtype]) / 4);
  context.run({
    shader: "gather-packed",
    constants: typeConstant("table", table.dtype),
    buffers: { table, index, out },
    writes: ["out"],
    uniforms: {
      items,
      elements,
      columns: table.shape[1],
      rows: table.shape[0],
      missing: missingWords[table.dtype],
      table_step: 1,
    },
    groups: Math.ceil(items / THREADS),
  });
}

/** Positions in the order of their rows, and where each row's begin: (R,) and (V + 1,). */
function sortByRow(context: KernelContext, index: View, rows: number): { order: View; starts: View } {
  const count = index.shape[0];
  const order = context.temporary([count], "i32");
  const listed = context.temporary([count], "i32");
  const starts = context.temporary([rows + 1], "i32");
  const vec = count % 4 === 0 && index.offset % 4 === 0;
  const items = vec ? count / 4 : count;
  context.run({
    shader: "scatter-sort",
    constants: { index_vec: vec },
    buffers: { index: use(index, vec), order, listed, starts },
    writes: ["order", "listed", "starts"],
    uniforms: { items, rows, piece: Math.ceil(items / THREADS) },
    groups: Math.ceil(rows / SORTED_ROWS),
  });
  return { order, starts };
}

/** Rows of the source to a row of the output, on average, from which on several threads share an element. */
const MANY_ROWS = 16;

function sumSorted(context: KernelContext, order: View, starts: View, source: View, out: View): void {
  const vec = inFours(source, out);
  const [rows, width] = out.shape;
  const columns = width / (vec ? 4 : 1);
  const items = rows * columns;
  const strands = source.shape[0] >= MANY_ROWS * rows ? 8 : 1;
  context.run({
    shader: "scatter-sum",
    constants: { out_vec: vec, strands, single: strands === 1 },
    buffers: { order, starts, source: use(source, vec), out: use(out, vec) },
    writes: ["out"],
    uniforms: { items, columns },
    groups: Math.ceil(items / (THREADS / strands)),
  });
}

export const indexingKernels = (context: KernelContext): Pick<Kernels, "gather" | "scatterAdd" | "iota"> => {
  const { fill } = copyKernels(context);
  return {
    gather(table, index, out) {
      if (sizeOf(out.shape) === 0) return;
      if (table.shape[0] === 0) return fill(out, isFloat(out.dtype) ? Number.NaN : 0);
      const [from, to] = [asWords(table), asWords(out)];
      if (from !== undefined && to !== undefined) {
        gatherWords(context, from, index, to, missingWords[table.dtype]);
      } else {
        gatherPacked(context, table, index, out);
      }
    },
    scatterAdd(index, source, out) {
      if (sizeOf(out.shape) === 0) return;
      if (sizeOf(source.shape) === 0) return fill(out, 0);
      const { order, starts } = sortByRow(context, index, out.shape[0]);
      sumSorted(context, order, starts, source, out);
    },
    iota(out) {
      const items = sizeOf(out.shape);
      if (items === 0) return;
      context.run({
        shader: "iota",
        buffers: { out },
        writes: ["out"],
        uniforms: { items },
        groups: Math.ceil(items / THREADS),
      });
    },
  };
};
