// Layer: CUDA backend. Products of some rows, with what goes in the same launch: the convolution of some of their columns, and halves of
// norms; and the scan that begins such a norm. Knows native/kernels/matmul_rows.cu and the order of its parameters, and which columns a
// convolution is of. Knows no formula.

import { i32, type Launch } from "./context.js";
import { type HalfNorm, halfAddNorm, halfKeptNorm } from "./fuseHalves.js";
import { disjoint, type Link, type Range, sizeOfType } from "./fuseLinks.js";
import { noConvolution, noRowsAdd, noRowsNorm } from "./kernels/matmul.js";

/** A launch in place of so many, and what it leaves to the next. */
export interface RowsLaunch {
  readonly launch: Launch;
  readonly count: number;
  readonly half?: HalfNorm | undefined;
}

type Maybe = Link | undefined;

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

/**
 * One launch for a product of some rows, what is left of the norm before it, and what comes after it: the convolution, or half of a norm.
 * @param held the product and what follows it @param memory address of HALF_NORM_BYTES
 */
export function rowsProduct(
  held: readonly Maybe[],
  before: HalfNorm | undefined,
  memory: number,
): RowsLaunch | undefined {
  const [product, next] = held;
  if (product?.kind !== "rows") return undefined;
  const column = convColumn(product, next, before?.writes ?? []);
  const cut = column === undefined ? halfAddNorm(held, memory) : undefined;
  // A stream may lie where what is left of the norm before comes to lie. (That is a scan's: after the others there is a convolution.)
  const half = cut && next && disjoint(next.reads.slice(0, 1), before?.writes ?? []) ? cut : undefined;
  if (before === undefined && column === undefined && half === undefined) return undefined;
  const halves = noRowsNorm.length + noRowsAdd.length;
  const own = [...product.args.slice(0, -(noConvolution.length + 2 + halves))];
  const [early] = product.args.slice(-halves - 1);
  if (before) {
    own[0] = { kind: "pointer", address: before.left };
    own[6] = i32(before.pitch);
  }
  const args = [
    ...own,
    ...(column !== undefined && next ? next.args : noConvolution),
    i32(column ?? 0),
    early,
    ...(before?.second ?? noRowsNorm),
    ...(half?.first ?? noRowsAdd),
  ];
  return { launch: { ...product.launch, args }, count: column !== undefined || half ? 2 : 1, half };
}

/** One launch for a scan that keeps tokens, and half of the norm that is gated with what it gives. */
export function keptScan(held: readonly Maybe[], memory: number): RowsLaunch | undefined {
  const [scan] = held;
  const half = halfKeptNorm(held, memory);
  if (scan === undefined || half === undefined) return undefined;
  const kernel = scan.launch.kernel.replace("ssd_kept", "ssd_kept_norm");
  return { launch: { ...scan.launch, kernel, args: [...scan.args, ...half.first] }, count: 2, half };
}
