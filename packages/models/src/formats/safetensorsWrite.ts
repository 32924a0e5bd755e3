// Checkpoint formats: writing safetensors, tensor by tensor, so that a model larger than memory can be written.
// Knows the file interface and the format's header; knows no model and no device.
import { type FileSystem, type FileWriter, parentPath } from "@diffmamba/files";
import type { DType, HostTensor } from "@diffmamba/tensor";
import { elementBytes } from "./elements.js";
import { count, FormatError, shapeText, shown } from "./errors.js";
import { byteLength, layoutSafetensors } from "./safetensorsHeader.js";

type TypedArray = HostTensor["data"];

/** A tensor whose elements are fetched when their turn comes and dropped once written. */
export interface LazyTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  load(): Promise<TypedArray> | TypedArray;
}

export type WritableTensor = HostTensor | LazyTensor;

/** Named tensors: a map, or any pairs of name and tensor. */
export type NamedTensors = Iterable<readonly [string, WritableTensor]>;

export interface WriteSafetensorsOptions {
  /** Strings for `__metadata__`; the Hugging Face library expects `{ format: "pt" }`. Without it there is none. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Write to `path + ".tmp"` and rename into place (default false: the caller sees to it). */
  readonly atomic?: boolean;
}

/**
 * Writes a safetensors file: the same tensors give the same bytes, in whatever order they come.
 * @returns the bytes written
 * @throws FormatError for names and shapes that cannot be written and data that does not fit its shape (what was begun is
 *   removed); FileError where writing fails
 */
export async function writeSafetensors(
  files: FileSystem,
  path: string,
  tensors: NamedTensors,
  options: WriteSafetensorsOptions = {},
): Promise<number> {
  const { prefix, order, dataBytes } = layoutSafetensors(named(tensors), options.metadata, path);
  const target = options.atomic ? `${path}.tmp` : path;
  let writer: FileWriter | undefined;
  try {
    writer = await files.writer(target);
    await writer.write(prefix);
    for (const { name, tensor } of order) await writer.write(checkedBytes(name, tensor, await load(tensor), path));
    await writer.close();
    if (options.atomic) {
      await files.rename(target, path);
      await files.syncDirectory(parentPath(path));
    }
  } catch (error) {
    if (writer !== undefined) {
      await writer.abort();
      await files.remove(target).catch(() => undefined);
    }
    throw error;
  }
  return prefix.length + dataBytes;
}

/** A safetensors file in memory, byte for byte what `writeSafetensors` writes. @throws FormatError as there */
export function serializeSafetensors(
  tensors: Iterable<readonly [string, HostTensor]>,
  metadata?: Readonly<Record<string, string>>,
  name = "safetensors",
): Uint8Array {
  const { prefix, order, dataBytes } = layoutSafetensors(named(tensors), metadata, name);
  const out = new Uint8Array(prefix.length + dataBytes);
  out.set(prefix);
  let at = prefix.length;
  for (const { name: tensorName, tensor } of order) {
    const bytes = checkedBytes(tensorName, tensor, tensor.data, name);
    out.set(bytes, at);
    at += bytes.length;
  }
  return out;
}

interface Named<T> {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly tensor: T;
}

function named<T extends WritableTensor>(tensors: Iterable<readonly [string, T]>): Named<T>[] {
  return Array.from(tensors, ([name, tensor]) => ({ name, dtype: tensor.dtype, shape: tensor.shape, tensor }));
}

async function load(tensor: WritableTensor): Promise<TypedArray> {
  return "data" in tensor ? tensor.data : tensor.load();
}

const arrays: Readonly<Record<DType, { readonly name: string }>> = {
  f64: Float64Array,
  f32: Float32Array,
  bf16: Uint16Array,
  f16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
};

function checkedBytes(name: string, tensor: WritableTensor, data: TypedArray, path: string): Uint8Array {
  const { dtype, shape } = tensor;
  const bytes = byteLength(dtype, shape) ?? 0;
  // By size, not by instanceof: arrays of another realm (a worker, a test runner) are as good.
  if (data.BYTES_PER_ELEMENT * data.length !== bytes || data.constructor.name !== arrays[dtype].name) {
    throw new FormatError(
      path,
      `cannot write tensor "${shown(name)}": ${dtype} of shape ${shapeText(shape)} is ${count(bytes)} bytes of a ${arrays[dtype].name}; its data is a ${data.constructor.name} of ${count(data.length)} elements`,
    );
  }
  return elementBytes(data);
}
