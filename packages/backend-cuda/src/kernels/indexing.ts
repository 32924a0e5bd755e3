// Layer: CUDA kernels. gather, scatterAdd and random: grids and chunks. Knows native/kernels/indexing.cu. Knows no shape rule.

import { bytesPerElement, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import { i32, isAligned, type KernelContext, pointer } from "../context.js";

/** Rows that are sorted at once: the work grows with their square. */
const CHUNK = 32768;
/** Rows of one index that a warp sums: kShortRun of native/kernels/indexing.cu. */
const SHORT_RUN = 32;

/** Elements of a vector that rows of so many columns, which follow each other, can be taken in. */
function widthOf(columns: number, ...views: readonly View[]): number {
  const width = 16 / bytesPerElement[views[0].dtype];
  return views.every((view) => isAligned(view, 16, columns)) ? width : 1;
}

export const indexingKernels = (context: KernelContext): Pick<Kernels, "gather" | "scatterAdd" | "random"> => ({
  gather: (table, index, out) => {
    const [tableRows, columns] = table.shape;
    const [rows] = index.shape;
    const width = widthOf(columns, table, out);
    const threads = Math.min(256, 32 * Math.ceil(columns / width / 32));
    const tiles = Math.ceil(columns / width / threads);
    // Rows lie along y and z, each of which takes at most 65535 blocks.
    const most = 32768;
    for (let start = 0; start < rows; start += most) {
      context.launch({
        kernel: `gather_${table.dtype}_v${width}`,
        grid: [tiles, Math.min(most, rows - start)],
        block: threads,
        overlap: true,
        args: [
          pointer(table),
          pointer({ ...index, offset: index.offset + start }),
          pointer({ ...out, offset: out.offset + start * columns }),
          i32(tableRows),
          i32(columns),
        ],
      });
    }
  },
  scatterAdd: (index, src, out) => {
    const [tableRows, columns] = out.shape;
    const [rows] = index.shape;
    const width = widthOf(columns, src, out);
    context.clear(out);
    if (rows === 0) return;
    const ranks = context.temporary([Math.min(rows, CHUNK)], "i32");
    const sorted = context.temporary([Math.min(rows, CHUNK), 2], "i32");
    for (let start = 0; start < rows; start += CHUNK) {
      const count = Math.min(CHUNK, rows - start);
      const part = { ...index, offset: index.offset + start };
      context.clear(ranks);
      context.launch({
        kernel: "rank_rows",
        grid: [Math.ceil(count / 256), Math.ceil(count / 1024)],
        block: 256,
        args: [pointer(part), pointer(ranks), i32(count)],
      });
      context.launch({
        kernel: "sort_rows",
        grid: Math.ceil(count / 256),
        block: 256,
        args: [pointer(part), pointer(ranks), pointer(sorted), i32(count)],
      });
      const args = [
        pointer(sorted),
        pointer({ ...src, offset: src.offset + start * columns }),
        pointer(out),
        i32(count),
        i32(tableRows),
        i32(columns),
        i32(start > 0),
      ];
      context.launch({
        kernel: `scatter_short_${src.dtype}_v${width}`,
        grid: Math.ceil(count / 8),
        block: 256,
        args,
      });
      if (count <= SHORT_RUN) continue;
      context.launch({
        kernel: `scatter_long_${src.dtype}_v${width}`,
        grid: [Math.ceil(count / SHORT_RUN), Math.ceil(columns / width / 32)],
        block: [32, 8],
        args,
      });
    }
  },
  random: (out, step, { key, kind, threshold = 0 }) => {
    const count = sizeOf(out.shape);
    context.launch({
      kernel: `random_${out.dtype}`,
      grid: Math.ceil(count / 4 / 256),
      block: 256,
      args: [pointer(out), pointer(step), i32(key[0]), i32(key[1]), i32(threshold), i32(kind === "keep"), i32(count)],
    });
  },
});
