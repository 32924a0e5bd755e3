// Layer: CUDA backend. A token's small kernels, several in one launch: a norm, the product that it feeds, and the convolution of some of
// the product's columns; a product and the scan whose steps it gives; norms that are cut in halves (fuseRows.ts). The bits are those of the
// kernels one by one, but where a norm is cut, which rounds to bf16 in another place, and everything is written that they write. Here
// launches of a recording are held back until it is known what they become. Knows native/kernels/decode.cu.

import { type Argument, i32, type Launch, pointer } from "./context.js";
import { disjoint, FEW_ROWS, type Link, linkOf, sizeOfType } from "./fuseLinks.js";
import { convColumn, keptScan, type RowsLaunch, rowsProduct } from "./fuseRows.js";
import { noConvolution } from "./kernels/matmul.js";

/** kFusedThreads and its warps. */
const THREADS = 256;
const WARPS = 8;
/** Vectors of a row that a thread keeps: kHeld of native/kernels/norm_rows.cuh. */
const HELD = 2;
/** Shared memory that every device has. */
const MOST_SHARED = 47 * 1024;

type Maybe = Link | undefined;

/** Where a norm leaves its rows, their pitch and width, the width that a team has, and which argument is rstd. */
function normedOf({ kind, numbers }: Link) {
  if (kind === "addNorm") return { from: numbers[4], pitch: numbers[11], width: numbers[7], part: numbers[7], rstd: 5 };
  const [groups, part] = [numbers[6], numbers[7]];
  return { from: numbers[3], pitch: numbers[10], width: groups * part, part, rstd: 4 };
}

/**
 * The arguments with which every block makes the rows of a norm for itself, as the left matrix of the product that comes next. Undefined
 * where the product must wait for the norm.
 */
function normFeeds(norm: Maybe, product: Maybe): readonly Argument[] | undefined {
  if (product?.kind !== "product" || (norm?.kind !== "addNorm" && norm?.kind !== "norm")) return undefined;
  const { from, pitch, width, part, rstd } = normedOf(norm);
  const [a, , , , n, k, aPitch, , outPitch] = product.numbers;
  const { rows, type } = product;
  const team = norm.numbers[13];
  const same = a === from && k === width && rows === norm.rows && (rows === 1 || aPitch === pitch);
  if (!same || type !== norm.type || rows > FEW_ROWS || part > (HELD * team * 16) / sizeOfType(type)) return undefined;
  const kept = norm.writes.slice(0, -1);
  const unwanted = norm.writes[norm.writes.length - 1];
  // A block may still read what the norm is of, while others have gone on to the product, or have written the rows for all.
  if (!disjoint(norm.reads, [...product.writes, ...norm.writes]) || !disjoint(kept, product.writes)) return undefined;
  const { args } = norm;
  if (disjoint([unwanted], product.writes)) return args;
  // An rstd that nobody wants may lie where the product comes to lie, which then is all that remains.
  const [[begin, end]] = product.writes;
  const covered = unwanted[0] >= begin && unwanted[1] <= end && (rows === 1 || outPitch === n);
  return covered ? args.map((argument, i) => (i === rstd ? pointer(undefined) : argument)) : undefined;
}

/** Whether a product's rows are a scan's steps, which each warp can make for its channels. */
function productFeeds(product: Link, scan: Maybe): boolean {
  const pair = `${product.kind} ${scan?.kind}`;
  if (scan === undefined || (pair !== "product scan" && pair !== "shallow scanRows")) return false;
  const [, , out, rows, n, , , , pitch, accumulate, isF32] = product.numbers;
  const [delta, seq, lengths, start, states, fine] = [1, 9, 10, 11, 13, 14].map((i) => scan.numbers[i]);
  const [deltaPitch, length, channels, dState] = [17, 22, 23, 24].map((i) => scan.numbers[i]);
  const plain = [seq, lengths, start, states, fine].every((address) => address === 0) && length === 1;
  const fits =
    plain &&
    delta === out &&
    channels === n &&
    rows === scan.rows &&
    scan.type === product.type &&
    (dState * scan.stateBytes) % 16 === 0;
  if (!fits || accumulate || (isF32 && product.type !== "f32") || (rows > 1 && deltaPitch !== pitch)) return false;
  const others = scan.reads.filter((_, i) => i !== 1);
  return disjoint([...product.reads, ...others], [...product.writes, ...scan.writes]);
}

/** Columns of a product that a warp takes: of few columns one, so that the whole device reads. */
const columnsOf = (rows: number, n: number, multiprocessors: number): number =>
  rows > 2 || n > WARPS * multiprocessors ? 2 : 1;

/** One launch for a norm, its product, and the convolution that comes with it. */
function normedProduct(held: readonly Maybe[], multiprocessors: number): Fused | undefined {
  const [norm, product, next] = held;
  const normArguments = normFeeds(norm, product);
  if (normArguments === undefined || norm === undefined || product === undefined) return undefined;
  const { rows, type, numbers } = product;
  const column = convColumn(product, next, [...norm.reads, ...norm.writes]);
  const taken = rows <= 2 ? rows : rows <= 4 ? 4 : 8;
  const columns = columnsOf(rows, numbers[4], multiprocessors);
  const shared = taken * (numbers[5] * sizeOfType(type) + 4 * columns * WARPS);
  if (shared > MOST_SHARED) return undefined;
  const conv = column === undefined || next === undefined ? noConvolution : next.args;
  const launch: Launch = {
    kernel: `${norm.kind === "addNorm" ? "add_norm" : "norm"}_product${taken}x${columns}_${type}`,
    grid: Math.ceil(numbers[4] / columns / WARPS),
    block: THREADS,
    shared,
    overlap: true,
    args: [...normArguments, ...product.args, ...conv, i32(column ?? 0), i32(0)],
  };
  return { launch, count: column === undefined ? 2 : 3 };
}

function productScan([product, scan]: readonly Maybe[]): Fused | undefined {
  if (product === undefined || scan === undefined || !productFeeds(product, scan)) return undefined;
  const args = [...product.args, ...scan.args];
  const kernel = scan.launch.kernel.replace(/^selective_scan(_step)?/, "product_scan");
  return { launch: { ...scan.launch, kernel, args }, count: 2 };
}

/** A launch in place of so many. */
type Fused = Pick<RowsLaunch, "launch" | "count">;

/** Takes launches in, and emits in their place what does the same in fewer. */
export class Fuser {
  #held: Link[] = [];

  /**
   * @param emit enqueues a launch @param halves address of HALF_NORM_BYTES, which the recording keeps and nothing else ever has: what
   * is free when launches are emitted may have been in use when they came
   */
  constructor(
    private readonly multiprocessors: number,
    private readonly emit: (launch: Launch) => void,
    private readonly halves: number,
  ) {}

  /** @returns whether the launch is held back: it is then emitted in its turn */
  take(launch: Launch): boolean {
    const link = linkOf(launch);
    if (link === undefined) return false;
    this.#held.push(link);
    return true;
  }

  /** Emits what is held back. */
  flush(): void {
    const held = this.#held;
    this.#held = [];
    let rows: RowsLaunch | undefined;
    for (let i = 0; i < held.length; ) {
      const next = held.slice(i, i + 4);
      rows = rowsProduct(next, rows?.half, this.halves) ?? keptScan(next, this.halves);
      const fused: Fused | undefined = rows ?? normedProduct(next, this.multiprocessors) ?? productScan(next);
      this.emit(fused?.launch ?? held[i].launch);
      i += fused?.count ?? 1;
    }
  }
}
