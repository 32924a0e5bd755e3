// Layer: CUDA backend. Products of some rows, with what goes in the same launch: the convolution of some of their columns, and a norm of
// residual sums, half in the product before it and half in the one after it. Knows native/kernels/matmul_rows.cu and the order of its
// parameters, and which columns a convolution is of. Knows no other kernel.

import { type Argument, f32, i32, type Launch } from "./context.js";
import { disjoint, type Link, type Range, sizeOfType } from "./fuseLinks.js";
import { noConvolution, noRowsAdd, noRowsNorm } from "./kernels/matmul.js";

/** Columns of a block, and most rows and columns altogether: native/kernels/matmul_rows.cu and kNormWidth of rows_norm.cuh. */
const COLUMNS = 32;
const MOST_ROWS = 64;
const MOST_WIDTH = 1024;

/** Where sums, scaled rows and squares lie between the halves of a norm. */
const SUMS = 0;
const SCALED = SUMS + 4 * MOST_ROWS * MOST_WIDTH;
const SQUARES = SCALED + 2 * MOST_ROWS * MOST_WIDTH;
/** Bytes of them. */
export const HALF_NORM_BYTES = SQUARES + (4 * MOST_ROWS * MOST_WIDTH) / COLUMNS;

/** Half of a norm, which the product that comes next has to finish. */
export interface HalfNorm {
  /** Address of its memory. */
  readonly memory: number;
  /** The structure RowsNorm. */
  readonly args: readonly Argument[];
  readonly width: number;
  /** What is written when it is finished. */
  readonly writes: readonly Range[];
}

/** A launch in place of so many, and what it leaves to the next. */
export interface RowsLaunch {
  readonly launch: Launch;
  readonly count: number;
  readonly half?: HalfNorm | undefined;
}

type Maybe = Link | undefined;

const at = (address: number): Argument => ({ kind: "pointer", address });

/**
 * The first column of a product that the convolution after it is of: the block that makes a column has all that its channel needs.
 * Undefined where it is not of the product, or must wait. `read`: what other blocks may still read, or write.
 */
export function convColumn(product: Link, conv: Maybe, read: readonly Range[]): number | undefined {
  if (conv?.kind !== "conv" || conv.rows !== product.rows || conv.type !== product.type) return undefined;
  const [, , out, rows, n, , , , pitch, , isF32] = product.numbers;
  const [x, , , , , , , , channels, width, xPitch, , , , fours] = conv.numbers;
  const column = (x - out) / sizeOfType(product.type);
  const fits = Number.isInteger(column) && column >= 0 && column + channels <= n && width === 4 && fours !== 0;
  if (!fits || (isF32 && product.type !== "f32") || (rows > 1 && xPitch !== pitch)) return undefined;
  return disjoint(conv.writes, [...product.reads, ...read, ...product.writes]) ? column : undefined;
}

/** Whether the norm is of what the product adds to a residual stream, and its rows are the left matrix of the next product. */
function isBetween(product: Link, norm: Link, next: Link): boolean {
  const [, , out, rows, n, , , , outPitch, accumulate, isF32] = product.numbers;
  const [, y, , , normed, , , width, , yPitch, , normedPitch] = norm.numbers;
  const [left, , , , , k, leftPitch] = next.numbers;
  const before = y === out && yPitch === outPitch && width === n && !accumulate && !isF32;
  const after = left === normed && leftPitch === normedPitch && k === width;
  return before && after && norm.rows === rows && next.rows === rows && width % COLUMNS === 0 && width <= MOST_WIDTH;
}

/** The second half of a norm after a product. Undefined where the norm must stand alone. `memory`: where the halves meet. */
function halfNorm(product: Link, [norm, next, conv]: readonly Maybe[], memory: number): HalfNorm | undefined {
  if (norm?.kind !== "addNorm" || next?.kind !== "rows" || !product.launch.kernel.startsWith("matmul_rows")) {
    return undefined;
  }
  // In f16 rows may be too large before they are normed.
  const types = [product, norm, next].every(({ type }) => type === "bf16");
  if (!types || !isBetween(product, norm, next)) return undefined;
  const after = [...next.writes, ...(conv?.kind === "conv" ? conv.writes : [])];
  const kept = norm.writes.slice(0, -1);
  const rstd = norm.writes[norm.writes.length - 1];
  // An rstd that nobody wants may lie where the product or the convolution comes to lie, which then is all that remains.
  const unwanted = !disjoint([rstd], after);
  const covered = after.some(([begin, end]) => rstd[0] >= begin && rstd[1] <= end);
  // The residual stream is read while others write the product.
  if (!disjoint(kept, after) || (unwanted && !covered) || !disjoint(norm.reads.slice(0, 1), product.writes)) {
    return undefined;
  }
  const [, , weight, sum, normed, rstdAddress, , width, , , sumPitch, normedPitch, eps] = norm.numbers;
  return {
    memory,
    width,
    writes: unwanted ? kept : norm.writes,
    args: [
      ...[memory + SUMS, memory + SQUARES, weight, sum, normed, unwanted ? 0 : rstdAddress].map(at),
      ...[width / COLUMNS, sumPitch, normedPitch].map(i32),
      f32(eps),
    ],
  };
}

/**
 * One launch for a product of some rows, what is left of the norm before it, and what comes after it: the convolution, or half of a norm.
 * @param held the product and what follows it @param memory address of {@link HALF_NORM_BYTES}
 */
export function rowsProduct(
  [product, ...after]: readonly Maybe[],
  before: HalfNorm | undefined,
  memory: number,
): RowsLaunch | undefined {
  if (product?.kind !== "rows") return undefined;
  const [next] = after;
  const column = convColumn(product, next, before?.writes ?? []);
  // The stream that would be added to is mostly what the norm before leaves, and not there yet.
  const half = column === undefined && before === undefined ? halfNorm(product, after, memory) : undefined;
  if (before === undefined && column === undefined && half === undefined) return undefined;
  const rest = noConvolution.length + 2 + noRowsNorm.length + noRowsAdd.length;
  const own = [...product.args.slice(0, -rest)];
  if (before) {
    own[0] = at(before.memory + SCALED);
    own[6] = i32(before.width);
  }
  const add =
    half && next
      ? [
          ...[next.numbers[0], next.numbers[2], half.memory + SUMS, half.memory + SCALED, half.memory + SQUARES].map(
            at,
          ),
          ...[next.numbers[8], 0].map(i32),
        ]
      : noRowsAdd;
  const args = [
    ...own,
    ...(column !== undefined && next ? next.args : noConvolution),
    ...[column ?? 0, 0].map(i32),
    ...(before?.args ?? noRowsNorm),
    ...add,
  ];
  return { launch: { ...product.launch, args }, count: column !== undefined || half ? 2 : 1, half };
}
