// Published tensors: the names, shapes and slices under which checkpoints hold what memory holds fused, and the lossless
// way between the two. Weights, gradients and optimizer moments of a parameter all go the same way.
// Knows host arrays and parameters' shapes. Knows no module and no file.

import {
  bf16ToF32Array,
  type DType,
  f16ToF32Array,
  f32ToBf16Array,
  f32ToF16Array,
  type HostTensor,
  sizeOf,
  type TypedArray,
} from "@diffmamba/tensor";
import type { Parameter } from "./parameter.js";

/** A tensor of a checkpoint: slices of one parameter along one axis, side by side. */
export interface PublishedTensor {
  readonly name: string;
  readonly parameter: Parameter;
  /** Axis of the parameter along which the slices lie. */
  readonly axis: number;
  /** [start, end) of each slice, in the order of the published tensor. */
  readonly pieces: readonly (readonly [start: number, end: number])[];
  /** The published shape, where it is not that of the slices put together: (C, 1, W) of a (C, W) convolution. */
  readonly shape?: readonly number[];
}

/** A parameter published whole, under `name`. */
export function whole(name: string, parameter: Parameter, shape?: readonly number[]): PublishedTensor {
  const pieces = [[0, parameter.rank === 0 ? 1 : parameter.shape[0]]] as const;
  return { name, parameter, axis: 0, pieces, ...(shape && { shape }) };
}

/** The shape in the checkpoint. */
export function publishedShape({ parameter, axis, pieces, shape }: PublishedTensor): readonly number[] {
  if (shape !== undefined) return shape;
  const size = pieces.reduce((sum, [start, end]) => sum + end - start, 0);
  return parameter.shape.map((n, i) => (i === axis ? size : n));
}

/** Runs of elements: `count` runs of each slice, `stride` apart in the parameter. */
function runs({ parameter: { shape }, axis }: PublishedTensor): { count: number; inner: number; stride: number } {
  const inner = sizeOf(shape.slice(axis + 1));
  return { count: sizeOf(shape.slice(0, axis)), inner, stride: (shape[axis] ?? 1) * inner };
}

/** Copies between a parameter's elements and a published tensor's, in either direction. */
function transfer(entry: PublishedTensor, fused: TypedArray, parts: TypedArray, toParts: boolean): void {
  const { count, inner, stride } = runs(entry);
  let at = 0;
  for (let run = 0; run < count; run++) {
    for (const [start, end] of entry.pieces) {
      const from = run * stride + start * inner;
      const n = (end - start) * inner;
      if (toParts) parts.set(fused.subarray(from, from + n), at);
      else fused.set(parts.subarray(at, at + n), from);
      at += n;
    }
  }
}

/** From fused parameters (their elements by `read`) to published tensors. */
export async function unpack(
  published: readonly PublishedTensor[],
  read: (parameter: Parameter) => Promise<TypedArray>,
): Promise<Map<string, HostTensor>> {
  const fused = new Map<Parameter, TypedArray>();
  const out = new Map<string, HostTensor>();
  for (const entry of published) {
    const { parameter, name } = entry;
    const data = fused.get(parameter) ?? (await read(parameter));
    fused.set(parameter, data);
    const shape = publishedShape(entry);
    const parts = data.slice(0, sizeOf(shape));
    transfer(entry, data, parts, true);
    out.set(name, { dtype: parameter.dtype, shape, data: parts });
  }
  return out;
}

/** From published tensors to fused parameters' elements, in each parameter's own type. All names must be there. */
export function pack(
  published: readonly PublishedTensor[],
  tensors: ReadonlyMap<string, HostTensor>,
): Map<Parameter, TypedArray> {
  const fused = new Map<Parameter, TypedArray>();
  for (const entry of published) {
    const tensor = tensors.get(entry.name);
    if (tensor === undefined) throw new Error(`pack: ${entry.name} is missing.`);
    const { parameter } = entry;
    const parts = convertArray(tensor.data, tensor.dtype, parameter.dtype);
    const target = fused.get(parameter) ?? convertArray(new Float32Array(parameter.size), "f32", parameter.dtype);
    transfer(entry, target, parts, false);
    fused.set(parameter, target);
  }
  return fused;
}

/** Elements of one float type as those of another; the same array where the types agree. */
export function convertArray(data: TypedArray, from: DType, to: DType): TypedArray {
  if (from === to) return data;
  const wide = data instanceof Uint16Array ? (from === "bf16" ? bf16ToF32Array(data) : f16ToF32Array(data)) : data;
  switch (to) {
    case "f32":
      return Float32Array.from(wide);
    case "f64":
      return Float64Array.from(wide);
    case "bf16":
      return f32ToBf16Array(wide);
    case "f16":
      return f32ToF16Array(wide);
    default:
      throw new Error(`a ${from} tensor is not converted to ${to}.`);
  }
}
