// Layer: WebGPU kernels. Decides how a matrix product is computed: which kernel, how k is split, which tile.
// What changes the order of a sum follows from sizes alone; the tile, which does not, may follow a measured table.
// Pure functions over sizes. Knows no device, no buffer and no shader text.

import type { KernelLimits } from "../context.js";
import type { TileVariant } from "./matmulTile.js";
import { tileSize } from "./matmulTile.js";

/** (batch, rows, depth) x (batch, depth, columns). */
export interface ProductSize {
  readonly batch: number;
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
}

/** Multiprocessors of the GPU that splits are planned for: an H100. No API tells, and the bits may not depend on it. */
const processors = 132;

/** Parts of k and the length of each but the last, which may be shorter. */
export interface Split {
  readonly splits: number;
  readonly chunk: number;
}

const roundUp = (x: number, to: number): number => Math.ceil(x / to) * to;

function splitInto(depth: number, splits: number, unit: number): Split {
  const chunk = roundUp(Math.ceil(depth / splits), unit);
  return { splits: Math.ceil(depth / chunk), chunk };
}

/** What cutting k into parts costs, in steps of k of one tile, and how many parts there may be. */
export interface SplitCost {
  /** Writing, reading and adding up a part of a tile. */
  readonly written: number;
  readonly most: number;
}

/** Into how many parts k is cut so that tiles of 128 x 128 fill the processors. */
export function splitAlong({ batch, rows, columns, depth }: ProductSize, { written, most }: SplitCost): Split {
  const tiles = batch * Math.ceil(rows / 128) * Math.ceil(columns / 128);
  let best = { splits: 1, time: Math.ceil(tiles / processors) * depth };
  for (let splits = 2; splits <= Math.min(most, Math.floor(depth / 128)); splits++) {
    const rounds = Math.ceil((tiles * splits) / processors);
    // A step of k counts for each part, and the sum of the parts is a dispatch of its own.
    const time = rounds * (depth / splits + written) + 40;
    if (time < 0.97 * best.time) best = { splits, time };
  }
  return splitInto(depth, best.splits, 32);
}

/** The parts of k for the kernel of tiles. */
export function splitTiled(size: ProductSize): Split {
  return splitAlong(size, { written: 75, most: 16 });
}

/** With few rows: threads that share a row of the wide operand, rows that they take at once, and the parts of k. */
export interface DotPlan extends Split {
  readonly team: number;
  readonly rows: number;
  readonly groups: number;
}

/** @param unit elements that a thread reads at once */
export function planDot(few: number, wide: number, batch: number, depth: number, unit: number): DotPlan {
  const threads = 256;
  let team = 4;
  while (team < 32 && 2 * team * unit * 2 <= depth) team *= 2;
  const groupsWith = (t: number): number => batch * Math.ceil((wide * t) / threads);
  while (team < threads && groupsWith(team) < 2 * processors && depth >= 4 * team * unit) team *= 2;
  const atOnce = groupsWith(team) >= 64 * processors ? 4 : groupsWith(team) >= 16 * processors ? 2 : 1;
  const rows = Math.max(1, Math.min(atOnce, 8 >> Math.ceil(Math.log2(few))));
  const groups = Math.ceil((wide * team) / (threads * rows));
  const most = Math.floor(depth / (8 * team * unit));
  const wanted = groups * batch < processors ? Math.ceil((2 * processors) / (groups * batch)) : 1;
  return { team, rows, groups, ...splitInto(depth, Math.max(1, Math.min(wanted, most)), 8) };
}

/** With few rows and the wide operand contiguous along them: threads side by side, and the parts of k. */
export interface ColumnsPlan extends Split {
  readonly across: number;
  readonly groups: number;
}

/** @param reads columns of the wide operand, in reads of a thread */
export function planColumns(reads: number, batch: number, depth: number): ColumnsPlan {
  let across = 32;
  while (across > 8 && batch * Math.ceil(reads / across) < processors) across /= 2;
  const groups = Math.ceil(reads / across);
  const most = Math.floor((depth * across) / (256 * 16));
  const wanted = groups * batch < processors / 2 ? Math.ceil(processors / (groups * batch)) : 1;
  return { across, groups, ...splitInto(depth, Math.max(1, Math.min(wanted, most)), 8) };
}

/** All tiles there are, from large to small: 128 x 128 and its relatives for training, small ones for small products. */
export const tileVariants: readonly TileVariant[] = [
  { name: "128x256x8", warps: [4, 2], lanes: [4, 8], thread: [8, 16], depth: 8, stages: 2 },
  { name: "256x128x8", warps: [4, 2], lanes: [4, 8], thread: [16, 8], depth: 8, stages: 2 },
  { name: "128x128x16d", warps: [4, 2], lanes: [4, 8], thread: [8, 8], depth: 16, stages: 2 },
  { name: "128x128x16", warps: [4, 2], lanes: [4, 8], thread: [8, 8], depth: 16, stages: 1 },
  { name: "128x128x8d", warps: [4, 2], lanes: [4, 8], thread: [8, 8], depth: 8, stages: 2 },
  { name: "128x128x8w", warps: [2, 2], lanes: [4, 8], thread: [16, 8], depth: 8, stages: 2, together: 2 },
  { name: "64x128x16d", warps: [2, 2], lanes: [4, 8], thread: [8, 8], depth: 16, stages: 2 },
  { name: "128x64x16d", warps: [2, 2], lanes: [8, 4], thread: [8, 8], depth: 16, stages: 2 },
  { name: "64x64x16d", warps: [2, 2], lanes: [4, 8], thread: [8, 4], depth: 16, stages: 2 },
  { name: "32x64x16", warps: [1, 2], lanes: [4, 8], thread: [8, 4], depth: 16, stages: 1 },
  { name: "32x32x16", warps: [2, 1], lanes: [4, 8], thread: [4, 4], depth: 16, stages: 1 },
];

/** For devices that compute on the processor: there large tiles only take longer to compile. */
const rolledVariant: TileVariant = {
  name: "32x32x16r",
  warps: [2, 1],
  lanes: [4, 8],
  thread: [4, 4],
  depth: 16,
  stages: 1,
  rolled: true,
};

/** Throughput of each variant where there is work for all processors, relative to one another. */
export type Throughput = Readonly<Record<string, number>>;

/** What is assumed where nothing was measured: on an H100, relative to the fastest there. */
export const assumedThroughput: Throughput = {
  "128x256x8": 0.94,
  "256x128x8": 0.94,
  "128x128x16d": 0.93,
  "128x128x16": 0.91,
  "128x128x8d": 0.7,
  "128x128x8w": 1,
  "64x128x16d": 0.8,
  "128x64x16d": 0.79,
  "64x64x16d": 0.77,
  "32x64x16": 0.75,
  "32x32x16": 0.63,
};

/** The variants whose workgroups the device takes. */
export function possibleVariants({ workgroupSize, workgroupBytes, fallback }: KernelLimits): readonly TileVariant[] {
  if (fallback) return [rolledVariant];
  return tileVariants.filter((variant) => {
    const { threads, bytes } = tileSize(variant);
    return threads <= workgroupSize && bytes <= workgroupBytes;
  });
}

/**
 * The variant that should be done first: rounds of tiles over the processors, slower where a round leaves them idle. Where a processor
 * runs two at once it takes two when it has none, so that a round is of twice as many.
 */
export function chooseVariant(
  size: ProductSize,
  splits: number,
  variants: readonly TileVariant[],
  throughput: Throughput,
): TileVariant {
  const time = (variant: TileVariant): number => {
    const { rows, columns, threads } = tileSize(variant);
    const tiles = size.batch * splits * Math.ceil(size.rows / rows) * Math.ceil(size.columns / columns);
    const { together = 1 } = variant;
    const rounds = Math.ceil(tiles / (processors * together)) * together;
    // Eight warps are what a processor needs to be busy.
    const busy = Math.min(1, (rounds * threads) / 256);
    const rate = throughput[variant.name] ?? assumedThroughput[variant.name] ?? 1;
    return (rounds * rows * columns) / (rate * busy);
  };
  const [first, ...others] = variants;
  return others.reduce((best, next) => (time(next) < time(best) ? next : best), first);
}
