// Layer: CUDA kernels. Matrix products: what their layouts are, and who computes them: own kernels for few rows, cuBLASLt for the rest,
// own tiles where it is absent or refuses. Knows layouts and native/kernels/matmul.cu. Knows no device.

import { BackendError, bytesPerElement, formatShape, type Kernels, type View } from "@diffmamba/tensor";
import {
  type Argument,
  type DeviceProperties,
  f32,
  i32,
  i64,
  isAligned,
  type KernelContext,
  pointer,
} from "../context.js";
import { elementwiseKernels } from "./elementwise.js";

/** A batch of matrices: each has one contiguous axis, `transposed` where that is the first, and a pitch in the other. */
export interface Matrices {
  readonly view: View;
  readonly transposed: boolean;
  readonly pitch: number;
  /** Elements from one matrix to the next. */
  readonly step: number;
}

/** out (batch, m, n) = a (batch, m, k) b (batch, k, n), or is added to. */
export interface Product {
  readonly a: Matrices;
  readonly b: Matrices;
  readonly out: Matrices;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  readonly accumulate: boolean;
  /** (n,), of the type of `out`: added to every row. */
  readonly bias?: View;
}

export interface ProductContext extends KernelContext {
  readonly tf32: boolean;
  /** Enqueues a product on cuBLASLt. @returns false where it is absent, or does not take such a one */
  multiply(product: Product): boolean;
}

/** Most rows of `a` for which the time is that of reading `b`. */
const FEW_ROWS = 8;
/** Most rows of which a block of `matmul_rows` has all. */
const SOME_ROWS = 64;
/** Most of k that a lane sums by itself. */
const SHALLOW = 64;
/** Columns of a block of `matmul_rows`, and how many blocks of a cluster share k, in multiples of so many elements. */
const TILE_COLUMNS = 32;
const SPLIT = 4;
const SHARE = 64;
/** Elements of k of a piece of it, and pieces that are on their way at a time. */
const ROWS_DEEP = 128;
const ROWS_STAGES = 4;
/** Bytes of its sums, which come to lie where the pieces were; and what it declares itself, at most, of one block and of a cluster's. */
const SUMS = 4 * 128 * 40;
const DECLARED = { one: 2048, ofCluster: 12288 };
/** Columns of a tile of `matmul_wide`, elements of k of a piece, and pieces that are on their way at a time. */
const WIDE_COLUMNS = 128;
const DEEP = 64;
const WIDE_STAGES = 5;
/** Blocks to a multiprocessor up to which no two of a cluster's kind share one: fewer places than that are left to clusters. */
const ALONE = 0.75;
/** Blocks to a multiprocessor up to which those that share one take little longer than the others, where it has room for two. */
const CROWDED = 1.5;
/** From here on blocks may be a cluster. */
const CLUSTERS = 90;
const THREADS = 256;
const TILE = { f32: 64, half: 128 };
/** Matrices of a batch that one launch takes. */
const MOST_BATCH = 65535;

/** @throws BackendError where a matrix has no contiguous axis */
export function matricesOf(name: string, view: View): Matrices {
  const [batch, rows, columns] = view.shape;
  const [step, row, column] = view.strides;
  const between = batch === 1 ? 0 : step;
  // The pitch of a single line is never used: one that keeps vectors aligned is as good as any.
  const alone = (n: number) => Math.ceil(n / 8) * 8;
  if ((column === 1 || columns === 1) && (row >= columns || rows === 1)) {
    return { view, transposed: false, pitch: rows === 1 ? alone(columns) : row, step: between };
  }
  if ((row === 1 || rows === 1) && (column >= rows || columns === 1)) {
    return { view, transposed: true, pitch: columns === 1 ? alone(rows) : column, step: between };
  }
  throw new BackendError(
    `cuda: matmul: ${name} ${formatShape(view.shape)} has strides ${formatShape(view.strides)}; one axis of each matrix must be ` +
      "contiguous. Make it contiguous first.",
  );
}

/** Whether vectors of 16 bytes may be read along the contiguous axis. */
function comesInVectors({ view, pitch, step }: Matrices): boolean {
  return isAligned(view, 16, pitch, step);
}

/** Whether products of 9 to 64 rows may have kernels of their own: their lines are read in vectors along k. */
const isOfSomeRows = ({ a, b, m, k, batch }: Product): boolean =>
  batch === 1 &&
  m > FEW_ROWS &&
  m <= SOME_ROWS &&
  b.transposed &&
  !a.transposed &&
  k % 8 === 0 &&
  comesInVectors(a) &&
  comesInVectors(b);

/** How the kernel for few rows is cut: rows at once, and columns to a warp. Undefined where it is not for this product. */
export function skinnyPlan({ a, b, m, n, k, batch }: Product): { rows: number; columns: number } | undefined {
  const vector = 16 / bytesPerElement[a.view.dtype];
  const fits = batch === 1 && m <= FEW_ROWS && b.transposed && !a.transposed && k % vector === 0;
  if (!fits || !comesInVectors(a) || !comesInVectors(b)) return undefined;
  const rows = m <= 2 ? m : m <= 4 ? 4 : 8;
  // Many columns are taken two at a time; of few, each gets a warp, so that the whole device reads.
  return { rows, columns: rows > 2 || n >= 8192 ? 2 : 1 };
}

interface RowsPlan {
  /** 16 rows so many times. */
  readonly tall: number;
  /** Blocks that share k. */
  readonly split: number;
  /** Bytes of shared memory. */
  readonly shared: number;
}

type RowsDevice = Pick<
  DeviceProperties,
  "multiprocessors" | "computeCapability" | "sharedPerMultiprocessor" | "sharedPerBlock"
>;

/**
 * How the kernel for some rows is cut; "shallow" where k is so short that an element is the work of a lane. Undefined where it is not for
 * this product: with more blocks than multiprocessors some would wait, and cuBLASLt is quicker.
 */
export function rowsPlan(product: Product, device: RowsDevice): RowsPlan | "shallow" | undefined {
  if (!isOfSomeRows(product)) return undefined;
  const { a, m, n, k } = product;
  const { multiprocessors, computeCapability, sharedPerMultiprocessor, sharedPerBlock } = device;
  if (k <= SHALLOW) return "shallow";
  if (a.view.dtype === "f32") return undefined;
  const tiles = Math.ceil(n / TILE_COLUMNS);
  const tall = m <= 16 ? 1 : m <= 32 ? 2 : 4;
  const ringOf = (deep: number) =>
    2 * ROWS_DEEP * (16 * tall + TILE_COLUMNS) * Math.min(Math.ceil(deep / ROWS_DEEP), ROWS_STAGES);
  // Of few columns several blocks share k, so that the whole device reads.
  const part = ringOf(Math.ceil(k / SPLIT / SHARE) * SHARE);
  const hasClusters = computeCapability >= CLUSTERS && part + DECLARED.ofCluster <= sharedPerBlock;
  if (hasClusters && n < 2048 && k >= 512 && tiles * SPLIT <= multiprocessors) {
    // Where the kernel before ends here and there, blocks would crowd there, and those of the next kernel elsewhere.
    const alone = tiles * SPLIT <= ALONE * multiprocessors ? sharedPerMultiprocessor / 2 : 0;
    return { tall, split: SPLIT, shared: Math.max(part, alone) };
  }
  const shared = Math.max(ringOf(k), SUMS);
  const most = 2 * (shared + DECLARED.one) <= sharedPerMultiprocessor ? CROWDED : 1;
  return tiles > most * multiprocessors || shared + DECLARED.one > sharedPerBlock
    ? undefined
    : { tall, split: 1, shared };
}

interface WidePlan {
  /** 32 rows so many times. */
  readonly halves: number;
  readonly blocks: number;
  /** Bytes of shared memory. */
  readonly shared: number;
}

/**
 * How the kernel for some rows and very many columns is cut. Undefined where it is not for this product: with few tiles to a multiprocessor
 * some would wait for the others, and where the rows do not fit into shared memory they would be read again and again.
 */
export function widePlan(
  product: Product,
  { multiprocessors, sharedPerBlock }: Pick<DeviceProperties, "multiprocessors" | "sharedPerBlock">,
): WidePlan | undefined {
  const { a, m, n, k } = product;
  const tiles = Math.ceil(n / WIDE_COLUMNS);
  if (!isOfSomeRows(product) || a.view.dtype === "f32" || tiles < 2 * multiprocessors) return undefined;
  const halves = m <= 32 ? 1 : 2;
  const shared = 2 * DEEP * (Math.ceil(k / DEEP) * 32 * halves + WIDE_STAGES * WIDE_COLUMNS);
  return shared <= sharedPerBlock ? { halves, blocks: multiprocessors, shared } : undefined;
}

/** Parameters of a token's product, as kernels/token_product.cuh has them. */
const tokenArguments = ({ a, b, out, m, n, k, accumulate }: Product): readonly Argument[] => [
  ...[a, b, out].map(({ view }) => pointer(view)),
  ...[m, n, k, a.pitch, b.pitch, out.pitch].map(i32),
  i32(accumulate),
  i32(out.view.dtype === "f32"),
];

/** A convolution that is absent: the structure ConvStep. */
export const noConvolution: readonly Argument[] = [
  ...Array.from({ length: 6 }, () => pointer(undefined)),
  ...[0, 0, 0, 0].map(i32),
  ...[0, 0, 0].map(i64),
  ...[0, 0, 0, 0].map(i32),
];

/** Half a norm before and after a product that are absent: the structures RowsNorm and RowsAdd of native/kernels/rows_norm.cuh. */
export const noRowsNorm: readonly Argument[] = [
  ...Array.from({ length: 6 }, () => pointer(undefined)),
  ...[0, 0, 0].map(i32),
  f32(0),
];
export const noRowsAdd: readonly Argument[] = [
  ...Array.from({ length: 5 }, () => pointer(undefined)),
  ...[0, 0].map(i32),
];

const matrixArguments = (x: Matrices): readonly Argument[] => [
  i64(x.pitch),
  i64(x.step),
  i32(x.transposed),
  i32(comesInVectors(x)),
];

export function matmulKernels(context: ProductContext): Pick<Kernels, "matmul"> {
  const { binary } = elementwiseKernels(context);
  const addBias = (out: View, bias: View): void =>
    binary("add", out, { ...bias, shape: out.shape, strides: [0, 0, bias.strides[0]] }, out);

  const skinny = (product: Product, { rows, columns }: { rows: number; columns: number }): void => {
    const warps = 4;
    context.launch({
      kernel: `matmul_skinny${rows}x${columns}_${product.a.view.dtype}`,
      grid: Math.ceil(product.n / columns / warps),
      block: 32 * warps,
      overlap: true,
      args: tokenArguments(product),
    });
  };

  const someRows = (product: Product, { tall, split, shared }: RowsPlan): void =>
    context.launch({
      kernel: `matmul_rows${tall}x${split}_${product.a.view.dtype}`,
      grid: Math.ceil(product.n / TILE_COLUMNS) * split,
      block: THREADS,
      shared,
      overlap: true,
      beside: true,
      args: [
        ...tokenArguments(product),
        ...noConvolution,
        i32(0),
        i32(context.isUntouched(product.b.view)),
        ...noRowsNorm,
        ...noRowsAdd,
      ],
    });

  const wide = (product: Product, { halves, blocks, shared }: WidePlan): void =>
    context.launch({
      kernel: `matmul_wide${halves}_${product.a.view.dtype}`,
      grid: blocks,
      block: THREADS,
      shared,
      overlap: true,
      args: [...tokenArguments(product), i32(context.isUntouched(product.b.view)), i32(0)],
    });

  const shallow = (product: Product): void =>
    context.launch({
      kernel: `matmul_shallow_${product.a.view.dtype}`,
      grid: [Math.ceil(product.n / 32), Math.ceil(product.m / 4)],
      block: 128,
      overlap: true,
      args: tokenArguments(product),
    });

  const tiles = ({ a, b, out, m, n, k, batch, accumulate }: Product): void => {
    const { dtype } = a.view;
    const tile = dtype === "f32" ? TILE.f32 : TILE.half;
    const at = ({ view, step }: Matrices, i: number): Argument => pointer({ ...view, offset: view.offset + i * step });
    for (let first = 0; first < batch; first += MOST_BATCH) {
      context.launch({
        kernel: `matmul_${Number(a.transposed)}${Number(b.transposed)}_${dtype}`,
        grid: [Math.ceil(n / tile), Math.ceil(m / tile), Math.min(MOST_BATCH, batch - first)],
        block: THREADS,
        args: [
          at(a, first),
          at(b, first),
          at(out, first),
          i32(m),
          i32(n),
          i32(k),
          ...matrixArguments(a),
          ...matrixArguments(b),
          i64(out.pitch),
          i64(out.step),
          i32(accumulate),
          i32(out.view.dtype === "f32"),
        ],
      });
    }
  };

  /** Products of up to 64 rows. @returns false where no kernel is for this one */
  const small = (product: Product): boolean => {
    const few = skinnyPlan(product);
    const some = few ? undefined : rowsPlan(product, context.device);
    const many = few || some ? undefined : widePlan(product, context.device);
    if (few) skinny(product, few);
    else if (some === "shallow") shallow(product);
    else if (some) someRows(product, some);
    else if (many) wide(product, many);
    return (few ?? some ?? many) !== undefined;
  };

  const large = (product: Product): void => {
    if (context.multiply(product)) return;
    const { bias, ...rest } = product;
    if (bias === undefined || !context.multiply(rest)) tiles(rest);
    if (bias) addBias(product.out.view, bias);
  };

  return {
    matmul: (a, b, out, { accumulate, bias }) => {
      const [batch, m, n] = out.shape;
      const k = a.shape[2];
      if (batch === 0 || m === 0 || n === 0) return;
      const product: Product = {
        a: matricesOf("a", a),
        b: matricesOf("b", b),
        out: {
          view: out,
          transposed: false,
          pitch: m === 1 ? n : out.strides[1],
          step: batch === 1 ? 0 : out.strides[0],
        },
        m,
        n,
        k,
        batch,
        accumulate,
      };
      if (small(product)) {
        if (bias) addBias(out, bias);
      } else {
        large({ ...product, ...(bias && { bias }) });
      }
    },
  };
}
