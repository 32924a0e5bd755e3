// Layer: WebGPU kernels. Finds by measuring how fast each tile variant of the matrix product runs on this adapter.
// The table only chooses between variants that give the same bits. Knows views, memory and clocks; stores nothing itself.

import type { Backend, View } from "@diffmamba/tensor";
import type { KernelLimits } from "../context.js";
import { possibleVariants, type Throughput } from "./matmulPlan.js";
import type { TileVariant } from "./matmulTile.js";

/** Which axes of the operands are contiguous: k or the kept one, for a and for b. */
export const layoutPairs = ["kk", "kn", "nk", "nn"] as const;
export type LayoutPair = (typeof layoutPairs)[number];

/** What was measured on one adapter, in TFLOP/s by layout and variant. Plain JSON. */
export interface MatmulTable {
  readonly version: 1;
  readonly throughput: Readonly<Partial<Record<LayoutPair, Throughput>>>;
}

const isThroughput = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.values(value).every((x) => typeof x === "number" && x > 0);

/** A table that was stored, or undefined where it is none or of another version. */
export function parseMatmulTable(stored: unknown): MatmulTable | undefined {
  if (typeof stored !== "object" || stored === null) return undefined;
  const { version, throughput } = stored as Partial<MatmulTable>;
  if (version !== 1 || typeof throughput !== "object" || throughput === null) return undefined;
  return Object.values(throughput).every(isThroughput) ? { version, throughput } : undefined;
}

/** The choice of tiles of one device: its table, or one variant that is forced while it is measured. */
export class MatmulTuning {
  readonly variants: readonly TileVariant[];
  #table: MatmulTable | undefined;
  #forced: TileVariant | undefined;
  /** Whether products of f32 may take the device's matrix units: not where those were found to be wrong. */
  trustsUnits = true;
  /** Goes up with every change, so that remembered choices can be dropped. */
  changes = 0;

  constructor(limits: KernelLimits) {
    this.variants = possibleVariants(limits);
  }

  get table(): MatmulTable | undefined {
    return this.#table;
  }

  set table(table: MatmulTable | undefined) {
    this.#table = table;
    this.changes++;
  }

  /** The one variant to use, for measuring and for tests. */
  get forced(): TileVariant | undefined {
    return this.#forced;
  }

  set forced(variant: TileVariant | undefined) {
    this.#forced = variant;
    this.changes++;
  }
}

/** What measuring stops at, and how. */
export interface TuneOptions {
  /** Stop measuring after this long; what is not measured keeps the assumed throughput. 10 by default. */
  readonly seconds?: number;
  /** Size of the products that are timed; thousands on a large GPU. */
  readonly size?: number;
  /** Where the clock is; milliseconds. */
  readonly now?: () => number;
}

/** Times that each variant is measured, in turns with the others. */
const ROUNDS = 5;

/** Milliseconds that the shorter of two runs should take: much beside what the clock and a waiting queue are off by. */
const RUN = 4;

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];

const layouts: Readonly<Record<"k" | "n", (outer: number, inner: number) => readonly [number, number]>> = {
  k: (_, inner) => [inner, 1],
  n: (outer) => [1, outer],
};

/**
 * Measures all variants on products of `size` cubed in the three layouts that training uses, and sets the table. A time is the
 * difference between a long and a short run, so that waiting for the end does not count; variants take turns, and the median counts.
 * Takes some seconds, half of it compiling; products are right, and the same bits, with and without.
 */
export async function measureVariants(
  backend: Backend,
  tuning: MatmulTuning,
  { seconds = 10, size = 2048, now = () => performance.now() }: TuneOptions = {},
): Promise<MatmulTable> {
  const buffers = [0, 1, 2].map(() => backend.allocate(4 * size * size));
  const view = (i: number, [outer, inner]: readonly [number, number]): View => ({
    buffer: buffers[i],
    dtype: "f32",
    shape: [1, size, size],
    strides: [0, outer, inner],
    offset: 0,
  });
  const out = view(2, [size, 1]);
  const throughput: Partial<Record<LayoutPair, Record<string, number>>> = {};
  const end = now() + 1000 * seconds;
  const before = tuning.forced;
  try {
    for (const buffer of buffers) {
      backend.kernels.fill({ buffer, dtype: "f32", shape: [size, size], strides: [size, 1], offset: 0 }, 0.5);
    }
    for (const pair of ["kk", "kn", "nn"] as const) {
      const a = view(0, layouts[pair[0] as "k" | "n"](size, size));
      const [outer, inner] = layouts[pair[1] as "k" | "n"](size, size);
      const b = view(1, [inner, outer]);
      const enqueue = (variant: TileVariant, times: number): void => {
        tuning.forced = variant;
        for (let i = 0; i < times; i++) backend.kernels.matmul(a, b, out, { accumulate: false });
      };
      const run = async (variant: TileVariant, times: number): Promise<number> => {
        const from = now();
        enqueue(variant, times);
        await backend.synchronize();
        return now() - from;
      };
      // All are compiled beside each other.
      for (const variant of tuning.variants) enqueue(variant, 1);
      await backend.synchronize();
      const [first] = tuning.variants;
      let times = 1;
      while (times < 64 && (await run(first, 3 * times)) - (await run(first, times)) < 2 * RUN) times *= 2;
      const measured = new Map<TileVariant, number[]>(tuning.variants.map((variant) => [variant, []]));
      for (let round = 0; round < ROUNDS && now() < end; round++) {
        for (const variant of tuning.variants) {
          const short = await run(variant, times);
          const long = await run(variant, 3 * times);
          if (long > short) measured.get(variant)?.push((2 * times * 2 * size ** 3) / ((long - short) * 1e9));
        }
      }
      const entries = [...measured].flatMap(([{ name }, rates]) =>
        rates.length > 0 ? [[name, median(rates)] as const] : [],
      );
      if (entries.length > 0) throughput[pair] = Object.fromEntries(entries);
    }
  } finally {
    tuning.forced = before;
    for (const buffer of buffers) backend.free(buffer);
  }
  tuning.table = { version: 1, throughput };
  return tuning.table;
}
