// Layer: CUDA backend. Launches that may become part of one: which they are, and the memory that each reads and writes.
// Knows the order of parameters of a token's kernels. Knows no launch of several.

import { type Argument, i32, type Launch } from "./context.js";

/** Rows that products by warps take: FEW_ROWS of kernels/matmul.ts. */
export const FEW_ROWS = 8;

/** [first byte, end); of what is absent [0, 0). */
export type Range = readonly [number, number];

export type LinkKind = "addNorm" | "norm" | "product" | "rows" | "shallow" | "conv" | "scan" | "scanRows" | "kept";

/** A launch with what is to be known of it. */
export interface Link {
  readonly launch: Launch;
  /** The launch's arguments; of `gated_rms_norm`, which takes no groups, those that `rms_norm` would be launched with. */
  readonly args: readonly Argument[];
  readonly kind: LinkKind;
  readonly type: string;
  /** Bytes of an element of a scan's state. */
  readonly stateBytes: number;
  /** The arguments, one after the other. */
  readonly numbers: readonly number[];
  readonly rows: number;
  /** Beside parameters, and states that are replaced in place. */
  readonly reads: readonly Range[];
  /** Of norms rstd is the last. */
  readonly writes: readonly Range[];
}

export const sizeOfType = (type: string): number => (type === "f32" ? 4 : 2);

const range = (address: number, bytes: number): Range => (address === 0 ? [0, 0] : [address, address + bytes]);

/** Rows of `width` elements, `pitch` from one to the next. */
const rowsOf = (address: number, rows: number, pitch: number, width: number, size: number): Range =>
  range(address, ((rows - 1) * pitch + width) * size);

export const disjoint = (some: readonly Range[], others: readonly Range[]): boolean =>
  !some.some((a) => others.some((b) => a[0] < b[1] && b[0] < a[1]));

function numbersOf(args: readonly Argument[]): number[] {
  return args.flatMap((argument): readonly number[] => {
    if (argument.kind === "pointer") return [argument.address];
    return "values" in argument ? argument.values : [argument.value];
  });
}

const patterns: readonly (readonly [RegExp, LinkKind])[] = [
  [/^add_rms_norm_f32_(?:(bf16|f16)_v8|(f32)_v4)$/, "addNorm"],
  [/^(?:rms_norm_(bf16|f16)_v8|rms_norm_(f32)_v4|gated_rms_norm_(bf16|f16|f32))$/, "norm"],
  [/^matmul_skinny\dx\d_(bf16|f16|f32)$/, "product"],
  [/^matmul_rows\dx\d_(bf16|f16)$/, "rows"],
  [/^matmul_shallow_(bf16|f16|f32)$/, "shallow"],
  [/^conv_step_(bf16|f16|f32)$/, "conv"],
  [/^selective_scan_step_(bf16|f16|f32)(?:_state_(bf16|f16))?_16$/, "scan"],
  [/^ssd_kept_(bf16|f16)_\d+$/, "kept"],
  [/^selective_scan_rows_(bf16|f16|f32)(?:_state_(bf16|f16))?$/, "scanRows"],
];

/** What is to be known of a launch; undefined where it never becomes part of another. */
export function linkOf(launch: Launch): Link | undefined {
  for (const [pattern, kind] of patterns) {
    const match = pattern.exec(launch.kernel);
    if (match === null) continue;
    const type = match.slice(1).find((name) => name !== undefined) as string;
    const args = launch.kernel.startsWith("gated") ? withGroups(launch) : launch.args;
    const numbers = numbersOf(args);
    const stateBytes = kind.startsWith("scan") && match[2] !== undefined ? sizeOfType(match[2]) : 4;
    const memory = memoryOf[kind](numbers, sizeOfType(type), rowsOfGrid(launch), stateBytes);
    return { launch, args, kind, type, stateBytes, numbers, ...memory };
  }
  return undefined;
}

/** Rows of a launch whose blocks along y are rows. */
function rowsOfGrid({ grid }: Launch): number {
  return (typeof grid === "number" ? 1 : grid[1]) ?? 1;
}

/** The arguments of `gated_rms_norm` as those of `rms_norm`. */
function withGroups(launch: Launch): readonly Argument[] {
  const { args } = launch;
  const groups = rowsOfGrid(launch);
  const [rows] = numbersOf(args.slice(5, 6));
  const [before, team] = [i32(false), args[args.length - 1]];
  return [...args.slice(0, 5), i32(rows * groups), i32(groups), ...args.slice(6, -1), before, team];
}

type Memory = Pick<Link, "rows" | "reads" | "writes">;
type MemoryOf = (n: readonly number[], size: number, gridRows: number, stateBytes: number) => Memory;

const memoryOfProduct: MemoryOf = ([a, , out, rows, n, k, aPitch, , outPitch, , isF32], size) => ({
  rows,
  reads: [rowsOf(a, rows, aPitch, k, size)],
  writes: [rowsOf(out, rows, outPitch, n, isF32 ? 4 : size)],
});

const memoryOfScan: MemoryOf = (n, size, rows, stateBytes) => {
  const [u, delta, , B, C, z, , , , , , , y, states, , finalState] = n;
  const [uPitch, deltaPitch, BPitch, CPitch, zPitch, yPitch, length, channels, dState, groups, , , chunks] =
    n.slice(16);
  const [tokens, state] = [rows * length, rows * channels * dState];
  return {
    rows,
    reads: [
      rowsOf(u, tokens, uPitch, channels, size),
      rowsOf(delta, tokens, deltaPitch, channels, size),
      rowsOf(B, tokens, BPitch, groups * dState, size),
      rowsOf(C, tokens, CPitch, groups * dState, size),
      rowsOf(z, tokens, zPitch, channels, size),
    ],
    writes: [
      rowsOf(y, tokens, yPitch, channels, size),
      range(states, chunks * state * 4),
      range(finalState, state * stateBytes),
    ],
  };
};

const memoryOf: Readonly<Record<LinkKind, MemoryOf>> = {
  addNorm([x, y, , sum, normed, rstd, rows, width, xPitch, yPitch, sumPitch, normedPitch], size) {
    return {
      rows,
      reads: [rowsOf(x, rows, xPitch, width, 4), rowsOf(y, rows, yPitch, width, size)],
      writes: [
        rowsOf(sum, rows, sumPitch, width, 4),
        rowsOf(normed, rows, normedPitch, width, size),
        range(rstd, rows * 4),
      ],
    };
  },

  norm([x, z, , y, rstd, units, groups, groupSize, xPitch, zPitch, yPitch], size) {
    const [rows, width] = [units / groups, groups * groupSize];
    return {
      rows,
      reads: [rowsOf(x, rows, xPitch, width, size), rowsOf(z, rows, zPitch, width, size)],
      writes: [rowsOf(y, rows, yPitch, width, size), range(rstd, units * 4)],
    };
  },

  product: memoryOfProduct,
  rows: memoryOfProduct,
  shallow: memoryOfProduct,

  conv([x, , , , y, finalState, rows, , channels, width, xPitch, yPitch], size) {
    return {
      rows,
      reads: [rowsOf(x, rows, xPitch, channels, size)],
      writes: [rowsOf(y, rows, yPitch, channels, size), range(finalState, rows * channels * width * 4)],
    };
  },

  kept(n, size, rows) {
    const [x, dt, , B, C, z, , , state, keptX, keptB, keptSteps, , y] = n;
    const [xPitch, dtPitch, BPitch, CPitch, zPitch, yPitch, heads, headDim, groups, kept, , , , , , dState] =
      n.slice(14);
    const [width, shared] = [heads * headDim, groups * dState];
    return {
      rows,
      reads: [
        rowsOf(x, rows, xPitch, width, size),
        rowsOf(dt, rows, dtPitch, heads, size),
        rowsOf(B, rows, BPitch, shared, size),
        rowsOf(C, rows, CPitch, shared, size),
        rowsOf(z, rows, zPitch, width, size),
      ],
      writes: [
        rowsOf(y, rows, yPitch, width, size),
        range(state, rows * width * dState * size),
        range(keptX, rows * kept * width * size),
        range(keptB, rows * kept * shared * size),
        range(keptSteps, rows * kept * heads * 4),
      ],
    };
  },

  scan: memoryOfScan,
  scanRows: (n, size, _, stateBytes) => memoryOfScan(n, size, n[n.length - 1], stateBytes),
};
