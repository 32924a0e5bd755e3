// Layer: CUDA backend. A norm before a product of some rows, half in the launch that gives what it is of and half in the product: which norms
// can be cut, and the two structures. Knows native/kernels/rows_norm.cuh and KeptNorm of ssd_kept.cuh, and the order of parameters of
// norms, products and the scan. Knows no launch of several.

import { type Argument, f32, i32 } from "./context.js";
import { disjoint, type Link, type Range } from "./fuseLinks.js";

/** Columns of a block of the product before a norm; channels of a block of the scan. */
const COLUMNS = 32;
const CHANNELS = 128;
/** Most rows, most blocks along a row (kNormParts of native/kernels/rows_norm.cuh), and most channels of the scan. */
const MOST_ROWS = 64;
const PARTS = 32;
const MOST_CHANNELS = 2048;

/** Where sums, scaled rows and squares of one kind lie, and scaled rows and squares of the other. */
const SUMS = 0;
const SCALED = SUMS + 4 * MOST_ROWS * COLUMNS * PARTS;
const SQUARES = SCALED + 2 * MOST_ROWS * COLUMNS * PARTS;
const GATED = SQUARES + 4 * MOST_ROWS * PARTS;
const GATED_SQUARES = GATED + 2 * MOST_ROWS * MOST_CHANNELS;
/** Bytes of all of them. */
export const HALF_NORM_BYTES = GATED_SQUARES + 4 * MOST_ROWS * PARTS;

/** Half of a norm, which the product that comes next has to finish. */
export interface HalfNorm {
  /** What is given to the launch before: the structure RowsAdd, or KeptNorm. */
  readonly first: readonly Argument[];
  /** What is given to the product: the structure RowsNorm, the address of its left matrix, and the pitch of that. */
  readonly second: readonly Argument[];
  readonly left: number;
  readonly pitch: number;
  /** What the product writes for the norm. */
  readonly writes: readonly Range[];
}

type Maybe = Link | undefined;

const at = (address: number): Argument => ({ kind: "pointer", address });

/**
 * What is written of the norm when the product has done its part, and whether rstd is: one that nobody wants may lie where others come to lie,
 * who then are all that remains. Undefined where the norm cannot wait so long. `after`: what is written meanwhile.
 */
function written({ writes }: Link, after: readonly Range[]): { writes: readonly Range[]; rstd: boolean } | undefined {
  const kept = writes.slice(0, -1);
  const rstd = writes[writes.length - 1];
  const free = disjoint([rstd], after);
  const covered = after.some(([begin, end]) => rstd[0] >= begin && rstd[1] <= end);
  if (!disjoint(kept, after) || (!free && !covered)) return undefined;
  return free ? { writes, rstd: true } : { writes: kept, rstd: false };
}

/** In f16 rows may be too large before they are normed. */
const areBf16 = (...links: readonly Link[]): boolean => links.every(({ type }) => type === "bf16");

/**
 * A norm of what a product adds to a residual stream, before the projection of a token whose convolution goes on from a state: a step of
 * training, which must have the same bits recorded and by calls, has no such. @param held the product and what follows it @param memory of
 * HALF_NORM_BYTES
 */
export function halfAddNorm([product, norm, next, conv]: readonly Maybe[], memory: number): HalfNorm | undefined {
  if (product?.kind !== "rows" || norm?.kind !== "addNorm" || next?.kind !== "rows" || conv?.kind !== "conv") {
    return undefined;
  }
  const [, , , state] = conv.numbers;
  const [, , out, rows, n, , , , outPitch, accumulate, isF32] = product.numbers;
  const [x, y, weight, sum, normed, rstd, , width, xPitch, yPitch, sumPitch, normedPitch, eps] = norm.numbers;
  const [left, , , , , k, leftPitch] = next.numbers;
  const before = y === out && yPitch === outPitch && width === n && !accumulate && !isF32;
  const after = left === normed && leftPitch === normedPitch && k === width;
  const fits = norm.rows === rows && next.rows === rows && width % COLUMNS === 0 && width <= COLUMNS * PARTS;
  if (!before || !after || !fits || state === 0 || !areBf16(product, norm, next)) return undefined;
  const end = written(norm, [...next.writes, ...conv.writes]);
  // The residual stream is read while others write the product.
  if (end === undefined || !disjoint(norm.reads.slice(0, 1), product.writes)) return undefined;
  return {
    first: [...[x, weight, memory + SUMS, memory + SCALED, memory + SQUARES].map(at), ...[xPitch, 0].map(i32)],
    second: [
      ...[memory + SUMS, memory + SQUARES, weight, sum, normed, end.rstd ? rstd : 0].map(at),
      ...[width / COLUMNS, sumPitch, normedPitch].map(i32),
      f32(eps),
    ],
    left: memory + SCALED,
    pitch: width,
    writes: end.writes,
  };
}

/** A gated norm of what a scan that keeps tokens gives. @param held the scan and what follows it @param memory of HALF_NORM_BYTES */
export function halfKeptNorm([scan, norm, next]: readonly Maybe[], memory: number): HalfNorm | undefined {
  if (scan?.kind !== "kept" || norm?.kind !== "norm" || next?.kind !== "rows") return undefined;
  const [y, yPitch, heads, headDim] = [13, 19, 20, 21].map((i) => scan.numbers[i]);
  const [x, z, weight, normed, rstd, , groups, width, xPitch, zPitch, normedPitch, eps, before] = norm.numbers;
  const [left, , , , , k, leftPitch] = next.numbers;
  const same = x === y && xPitch === yPitch && width === heads * headDim && z !== 0 && scan.numbers[5] === 0;
  const after = left === normed && leftPitch === normedPitch && k === width;
  const fits = norm.rows === scan.rows && next.rows === scan.rows && groups === 1 && !before;
  const blocks = width % CHANNELS === 0 && width <= MOST_CHANNELS;
  if (!same || !after || !fits || !blocks || !areBf16(scan, norm, next)) return undefined;
  const end = written(norm, next.writes);
  // The gate is read while others write what they have.
  if (end === undefined || !disjoint(norm.reads.slice(1), scan.writes)) return undefined;
  return {
    first: [...[z, weight, memory + GATED, memory + GATED_SQUARES].map(at), ...[zPitch, 0].map(i32)],
    second: [
      ...[0, memory + GATED_SQUARES, 0, 0, normed, end.rstd ? rstd : 0].map(at),
      ...[width / CHANNELS, 0, normedPitch].map(i32),
      f32(eps),
    ],
    left: memory + GATED,
    pitch: width,
    writes: end.writes,
  };
}
