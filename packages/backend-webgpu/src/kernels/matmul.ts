// Layer: WebGPU kernels. The matrix product: looks at sizes and layouts, picks one of the kernels (tiles, matrix units, or for
// few rows or columns dot products or columns), and splits k over workgroups where the result is small.
// Knows views and the kernel context. Knows no autograd and no device.

import {
  type Backend,
  type Device,
  isHalf,
  type PrimitiveKernels,
  sizeOf,
  ValueError,
  type View,
} from "@diffmamba/tensor";
import type { BufferUse, KernelContext, ShaderText } from "../context.js";
import { copyKernels } from "./copy.js";
import { runNormed } from "./matmulNormed.js";
import { assumedThroughput, chooseVariant, planColumns, planDot, splitTiled, type Throughput } from "./matmulPlan.js";
import { columnsShader, dotShader, elementsPerRead, wideElement } from "./matmulSkinny.js";
import { planSplit, type SplitProduct, splitProduct, takesSplit } from "./matmulSplit.js";
import { subgroupProduct, takesSubgroups } from "./matmulSubgroup.js";
import { type OperandLayout, type TileForm, type TileVariant, tileShader, tileSize } from "./matmulTile.js";
import {
  type LayoutPair,
  type MatmulTable,
  MatmulTuning,
  measureVariants,
  parseMatmulTable,
  type TuneOptions,
} from "./matmulTuning.js";

/** Products with at most this many rows or columns are bound by reading the other operand. */
const mostFew = 8;

/** One operand as the kernels see it: the axis that the product keeps ("outer") and k ("inner"). */
interface Operand {
  readonly view: View;
  /** Which axis of the view is the outer one. */
  readonly outerAxis: 1 | 2;
  readonly outer: number;
  readonly inner: number;
  readonly outerStride: number;
  readonly innerStride: number;
  readonly batchStride: number;
  readonly contiguous: OperandLayout["contiguous"];
  /** Elements from one row of the contiguous axis to the next; 0 where there is only one. */
  readonly pitch: number;
}

/** @param outerAxis 1 for a (batch, M, K), 2 for b (batch, K, N) */
function operand(view: View, outerAxis: 1 | 2): Operand {
  const innerAxis = 3 - outerAxis;
  const [outer, inner] = [view.shape[outerAxis], view.shape[innerAxis]];
  const [outerStride, innerStride] = [view.strides[outerAxis], view.strides[innerAxis]];
  const byInner = innerStride === 1 || (inner === 1 && outerStride !== 1);
  if (!byInner && outerStride !== 1 && outer > 1) {
    throw new ValueError(
      `matmul: an operand of ${view.shape.join(" x ")} has strides ${view.strides.join(", ")}; one of its last two axes must be contiguous. Copy it first.`,
    );
  }
  return {
    view,
    outerAxis,
    outer,
    inner,
    outerStride,
    innerStride,
    batchStride: view.shape[0] > 1 ? view.strides[0] : 0,
    contiguous: byInner ? "inner" : "outer",
    pitch: byInner ? (outer > 1 ? outerStride : 0) : inner > 1 ? innerStride : 0,
  };
}

/** Whether all rows of an operand begin and end at multiples of `width` elements. */
function aligned({ view, outer, inner, contiguous, pitch, batchStride }: Operand, width: number): boolean {
  const length = contiguous === "inner" ? inner : outer;
  return (view.offset | pitch | batchStride | length) % width === 0;
}

const use = (view: View, vec: boolean): BufferUse => (vec ? { view, vec: 4 } : view);

const tunings = new WeakMap<KernelContext, MatmulTuning>();

/** The choice of tiles of the device behind a context; made at first use. */
export function matmulTuning(context: KernelContext): MatmulTuning {
  let tuning = tunings.get(context);
  if (tuning === undefined) {
    tuning = new MatmulTuning(context.limits);
    tunings.set(context, tuning);
  }
  return tuning;
}

/** Measured throughput relative to the fastest, so that it can stand beside what is assumed. */
function relative(measured: Throughput | undefined): Throughput {
  if (measured === undefined) return assumedThroughput;
  const most = Math.max(...Object.values(measured));
  return Object.fromEntries(Object.entries(measured).map(([name, value]) => [name, value / most]));
}

class Matmul {
  readonly #context: KernelContext;
  readonly #tuning: MatmulTuning;
  readonly #copy: Pick<PrimitiveKernels, "copy" | "fill">;
  readonly #texts = new Map<string, ShaderText>();
  readonly #choices = new Map<string, TileVariant>();
  #changes = 0;

  constructor(context: KernelContext) {
    this.#context = context;
    this.#tuning = matmulTuning(context);
    this.#copy = copyKernels(context);
  }

  /** out (+)= a x b for any float type of each. */
  run(a: View, b: View, out: View, accumulate: boolean): void {
    if (sizeOf(out.shape) === 0) return;
    if (a.shape[2] === 0) {
      if (!accumulate) this.#copy.fill(out, 0);
      return;
    }
    if (isHalf(out.dtype)) {
      const wide = this.#context.temporary(out.shape, "f32");
      if (accumulate) this.#copy.copy(out, wide);
      this.run(a, b, wide, accumulate);
      this.#copy.copy(wide, out);
      return;
    }
    const [left, right] = [operand(a, 1), operand(b, 2)];
    if (left.outer <= mostFew && left.outer <= right.outer) {
      this.#skinny(left, right, out, { few: out.strides[1], wide: out.strides[2] }, accumulate);
    } else if (right.outer <= mostFew) {
      this.#skinny(right, left, out, { few: out.strides[2], wide: out.strides[1] }, accumulate);
    } else {
      const product = { a: left, b: right, out, depth: left.inner, accumulate };
      if (takesSubgroups(this.#context, product)) subgroupProduct(this.#context, product);
      else this.#wide({ ...product, a: this.#widened(left), b: this.#widened(right) });
    }
  }

  /** A product of f32 operands. A tile that is forced is one of the kernel of tiles. */
  #wide(product: SplitProduct & { readonly a: Operand; readonly b: Operand }): void {
    const { a, b, out, accumulate } = product;
    const { forced, trustsUnits } = this.#tuning;
    if (forced === undefined && trustsUnits && takesSplit(this.#context, product)) this.#split(product);
    else this.#tiled(a, b, out, accumulate);
  }

  #widened(from: Operand): Operand {
    if (!isHalf(from.view.dtype)) return from;
    const wide = this.#context.temporary(from.view.shape, "f32");
    this.#copy.copy(from.view, wide);
    return operand(wide, from.outerAxis);
  }

  #text(key: string, make: () => ShaderText): ShaderText {
    let text = this.#texts.get(key);
    if (text === undefined) {
      text = make();
      this.#texts.set(key, text);
    }
    return text;
  }

  #split(product: SplitProduct): void {
    const { out, depth, accumulate } = product;
    const [batch, rows, columns] = out.shape;
    const plan = planSplit({ batch, rows, columns, depth });
    const { splits } = plan;
    const to = splits > 1 ? this.#context.temporary([batch * splits, rows, columns], "f32") : out;
    splitProduct(this.#context, { ...product, accumulate: accumulate && splits === 1 }, to, plan);
    if (splits > 1) this.#sumSplits(to, out, { splits, rows, columns, row: out.strides[1], column: 1 }, accumulate);
  }

  #tiled(a: Operand, b: Operand, out: View, accumulate: boolean): void {
    const [batch, rows, columns] = out.shape;
    const depth = a.inner;
    const size = { batch, rows, columns, depth };
    const { splits, chunk } = splitTiled(size);
    const pitch = splits > 1 ? Math.ceil(columns / 4) * 4 : rows > 1 ? out.strides[1] : 0;
    const to = splits > 1 ? this.#context.temporary([batch * splits, rows, pitch], "f32") : out;
    const slice = splits > 1 ? rows * pitch : batch > 1 ? out.strides[0] : 0;
    const outVec = splits > 1 || (columns | pitch | slice | out.offset) % 4 === 0;
    const layout = (x: Operand): OperandLayout => ({ contiguous: x.contiguous, vec: aligned(x, 4) });
    const [aLayout, bLayout] = [layout(a), layout(b)];
    const variant = this.#variant(size, splits, aLayout, bLayout);
    const tile = tileSize(variant);
    const rest = depth % variant.depth !== 0;
    const adds = accumulate && splits === 1;
    const form: TileForm = { a: aLayout, b: bLayout, outVec, rest, accumulate: adds };
    const bits = [aLayout, bLayout].flatMap(({ contiguous, vec }) => [contiguous === "inner", vec]);
    const name = [variant.name, ...[...bits, outVec, rest, adds].map(Number)].join(" ");
    const [down, across] = [Math.ceil(rows / tile.rows), Math.ceil(columns / tile.columns)];
    const unit = (vec: boolean): number => (vec ? 4 : 1);
    this.#context.run({
      shader: this.#text(name, () => tileShader(variant, form)),
      buffers: { a: use(a.view, aLayout.vec), b: use(b.view, bLayout.vec), out: use(to, outVec) },
      writes: ["out"],
      uniforms: {
        rows,
        columns: splits > 1 ? pitch : columns,
        depth,
        tiles_m: down,
        tiles_n: across,
        slices: batch * splits,
        splits,
        chunk,
        a_pitch: a.pitch / unit(aLayout.vec),
        a_batch: a.batchStride / unit(aLayout.vec),
        b_pitch: b.pitch / unit(bLayout.vec),
        b_batch: b.batchStride / unit(bLayout.vec),
        out_pitch: pitch / unit(outVec),
        out_slice: slice / unit(outVec),
      },
      groups: down * across * batch * splits,
    });
    if (splits > 1) this.#sumSplits(to, out, { splits, rows, columns, row: out.strides[1], column: 1 }, accumulate);
  }

  #variant(
    size: { batch: number; rows: number; columns: number; depth: number },
    splits: number,
    a: OperandLayout,
    b: OperandLayout,
  ): TileVariant {
    const tuning = this.#tuning;
    if (tuning.forced !== undefined) return tuning.forced;
    if (tuning.changes !== this.#changes) {
      this.#choices.clear();
      this.#changes = tuning.changes;
    }
    const axis = ({ contiguous }: OperandLayout): string => (contiguous === "inner" ? "k" : "n");
    const pair = `${axis(a)}${axis(b)}` as LayoutPair;
    const key = `${size.batch} ${size.rows} ${size.columns} ${splits} ${pair}`;
    let variant = this.#choices.get(key);
    if (variant === undefined) {
      variant = chooseVariant(size, splits, tuning.variants, relative(tuning.table?.throughput[pair]));
      this.#choices.set(key, variant);
    }
    return variant;
  }

  /** Few rows (or columns) against many: reads the wide operand once, as it lies in memory. */
  #skinny(
    few: Operand,
    wide: Operand,
    out: View,
    strides: { readonly few: number; readonly wide: number },
    accumulate: boolean,
  ): void {
    // Halves are read as they are where they come in whole vectors along k.
    const packed = wide.contiguous === "inner" && aligned(wide, 8);
    if (isHalf(few.view.dtype) || (isHalf(wide.view.dtype) && !packed)) {
      this.#skinny(this.#widened(few), packed ? wide : this.#widened(wide), out, strides, accumulate);
      return;
    }
    const batch = out.shape[0];
    const element = wideElement(wide.view.dtype, aligned(wide, 4));
    const unit = elementsPerRead[element];
    const dot = wide.contiguous === "inner";
    const reads = dot ? wide.outer : wide.outer / unit;
    const plan = dot ? planDot(few.outer, wide.outer, batch, few.inner, unit) : planColumns(reads, batch, few.inner);
    const { splits, chunk, groups } = plan;
    const to = splits > 1 ? this.#context.temporary([batch * splits, few.outer, wide.outer], "f32") : out;
    const adds = accumulate && splits === 1;
    const rolled = this.#context.limits.fallback;
    if ("team" in plan && few.outer === 1 && batch === 1 && splits === 1 && element === "f32x4" && !accumulate) {
      // A row that nothing has made yet may have been put off until now.
      const deferred = few.innerStride === 1 ? this.#context.takeDeferred(few.view) : undefined;
      if (deferred !== undefined) {
        runNormed(this.#context, deferred, wide, { view: to, step: wide.outer > 1 ? strides.wide : 0 }, plan);
        return;
      }
    }
    const fewVec = dot && element !== "f32" && few.contiguous === "inner" && aligned(few, 4);
    const text =
      "team" in plan
        ? this.#text(`dot ${few.outer} ${plan.rows} ${element} ${plan.team} ${Number(fewVec)} ${Number(adds)}`, () =>
            dotShader({ few: few.outer, element, fewVec, team: plan.team, rows: plan.rows, accumulate: adds, rolled }),
          )
        : this.#text(`columns ${few.outer} ${element} ${plan.across} ${Number(adds)}`, () =>
            columnsShader({
              few: few.outer,
              element: element === "f32" ? "f32" : "f32x4",
              across: plan.across,
              accumulate: adds,
              rolled,
            }),
          );
    const fewUnit = fewVec ? 4 : 1;
    this.#context.run({
      shader: text,
      buffers: { few: use(few.view, fewVec), wide: use(wide.view, unit > 1), out: to },
      writes: ["out"],
      uniforms: {
        wide: reads,
        depth: few.inner,
        slices: batch * splits,
        splits,
        chunk,
        groups_each: groups,
        few_outer: few.outer > 1 ? few.outerStride / fewUnit : 0,
        few_inner: few.innerStride,
        few_batch: few.batchStride / fewUnit,
        wide_pitch: wide.pitch / unit,
        wide_batch: wide.batchStride / unit,
        out_few: splits > 1 ? wide.outer : few.outer > 1 ? strides.few : 0,
        out_wide: splits > 1 ? 1 : wide.outer > 1 ? strides.wide : 0,
        out_slice: splits > 1 ? few.outer * wide.outer : batch > 1 ? out.strides[0] : 0,
      },
      groups: groups * batch * splits,
    });
    if (splits > 1) {
      this.#sumSplits(
        to,
        out,
        { splits, rows: few.outer, columns: wide.outer, row: strides.few, column: strides.wide },
        accumulate,
      );
    }
  }

  /** out = the sum of the parts along k, in their order. */
  #sumSplits(
    parts: View,
    out: View,
    shape: {
      readonly splits: number;
      readonly rows: number;
      readonly columns: number;
      readonly row: number;
      readonly column: number;
    },
    accumulate: boolean,
  ): void {
    const { splits, rows, columns, row, column } = shape;
    const batch = out.shape[0];
    const pitch = parts.shape[2];
    const outBatch = batch > 1 ? out.strides[0] : 0;
    const outRow = rows > 1 ? row : 0;
    const vec = column === 1 && (columns | pitch | outBatch | outRow | out.offset) % 4 === 0;
    const unit = vec ? 4 : 1;
    this.#context.run({
      shader: "matmul-sum-splits",
      constants: { ACCUMULATE: accumulate },
      buffers: { parts: use(parts, vec), out: use(out, vec) },
      writes: ["out"],
      uniforms: {
        batch,
        rows,
        columns: columns / unit,
        splits,
        parts_pitch: pitch / unit,
        out_batch: outBatch / unit,
        out_row: outRow / unit,
        out_column: column,
      },
      groups: Math.ceil((batch * rows * columns) / unit / 256),
    });
  }
}

export const matmulKernels = (context: KernelContext): Pick<PrimitiveKernels, "matmul"> => {
  const product = new Matmul(context);
  return { matmul: (a, b, out, { accumulate }) => product.run(a, b, out, accumulate) };
};

/** What {@link tuneMatmul} needs of the device's backend: the WebGPU backend has it. */
interface TunableBackend extends Backend {
  readonly context: KernelContext;
}

export interface MatmulTuneOptions extends TuneOptions {
  /** A table of an earlier call on the same adapter: used instead of measuring, if it can be read. */
  readonly stored?: unknown;
}

/**
 * Chooses the tiles of the matrix product by measuring them on this adapter, once: give the table that comes back as
 * `stored` the next time. Never changes a result, not in one bit. @throws ValueError for a device of another backend
 */
export async function tuneMatmul(device: Device, options: MatmulTuneOptions = {}): Promise<MatmulTable> {
  const { backend } = device;
  if (!("context" in backend)) {
    throw new ValueError(`tuneMatmul: the device is "${device.name}"; only a WebGPU device has tiles to choose.`);
  }
  const tunable = backend as TunableBackend;
  const tuning = matmulTuning(tunable.context);
  const stored = parseMatmulTable(options.stored);
  if (stored !== undefined) {
    tuning.table = stored;
    return stored;
  }
  return measureVariants(tunable, tuning, options);
}
