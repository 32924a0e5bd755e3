// Checkpoint formats: the header of a safetensors file, read from hostile bytes and written for ours.
// Source: the format's description and checks in github.com/huggingface/safetensors (8-byte length, JSON, data).
// Knows bytes and JSON; reads and writes no file.
import type { DType } from "@diffmamba/tensor";
import { knownStoredTypes, storedNames, storedSize } from "./elements.js";
import { count, elementCount, FormatError, isSize, maxRank, shapeText, shown } from "./errors.js";
import { isJsonObject, type JsonValue, parseLooseJsonBytes } from "./looseJson.js";

/** The longest header that is read or written, in bytes: the limit of the reference. */
export const maxHeaderBytes = 100_000_000;

/** Bytes before the header: its length, a little-endian u64. */
export const lengthBytes = 8;

/** One tensor as the header describes it; `begin` and `end` are bytes from the start of the data. */
export interface SafetensorsEntry {
  readonly name: string;
  /** The type as the file names it: "F32", "BF16", "I64", ... */
  readonly stored: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** The strings under `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** The tensors in the order of their data. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Bytes of the data, which begin right after the header. */
  readonly dataBytes: number;
}

/**
 * The header's length from a file's first 8 bytes, checked against the limit and the file's size.
 * @throws FormatError
 */
export function readHeaderLength(prefix: Uint8Array, fileBytes: number, path: string): number {
  if (fileBytes < lengthBytes || prefix.length < lengthBytes) {
    throw new FormatError(path, `${count(fileBytes)} bytes: too short for a safetensors file. Nothing was loaded.`);
  }
  if (new TextDecoder().decode(prefix.subarray(0, lengthBytes)) === "version ") {
    throw new FormatError(
      path,
      "not a safetensors file (a Git LFS pointer?). Fetch the real file. Nothing was loaded.",
    );
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, lengthBytes);
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (length > maxHeaderBytes) {
    throw new FormatError(
      path,
      `says its header has ${count(length)} bytes; the limit is ${count(maxHeaderBytes)}. Not a safetensors file, or damaged. Nothing was loaded.`,
    );
  }
  if (lengthBytes + length > fileBytes) {
    throw new FormatError(
      path,
      `${count(fileBytes)} bytes, but its header alone needs ${count(lengthBytes + length)}: the file is cut short. Nothing was loaded.`,
    );
  }
  return length;
}

/**
 * Parses the JSON header of a safetensors file: names, types, shapes and offsets, all checked. Offsets must cover the data in
 * order without hole or overlap, and each range must be the size of its type times the product of its shape.
 * @param json the header's bytes, without the 8 of its length
 * @param path the file's path, for messages
 * @throws FormatError
 */
export function parseSafetensorsHeader(json: Uint8Array, path: string): SafetensorsHeader {
  if (json[0] !== 0x7b) throw new FormatError(path, 'the header does not begin with "{": not a safetensors file');
  const root = parseLooseJsonBytes(json, `${path} (header)`, { duplicates: "error", nonFinite: false });
  if (!isJsonObject(root)) throw new FormatError(path, "the header is not a JSON object");
  let metadata: ReadonlyMap<string, string> = new Map();
  const found: SafetensorsEntry[] = [];
  for (const [name, value] of Object.entries(root)) {
    if (name === "__metadata__") metadata = readMetadata(value, path);
    else found.push(readEntry(name, value, path));
  }
  found.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  for (const entry of found) {
    if (entry.begin !== end) {
      const what = entry.begin > end ? "leaves a hole" : "overlaps another tensor";
      throw new FormatError(
        path,
        `tensor "${shown(entry.name)}" begins at byte ${count(entry.begin)} of the data, but the one before it ends at ${count(end)}: it ${what}. Nothing was loaded.`,
      );
    }
    end = entry.end;
  }
  return { metadata, entries: new Map(found.map((entry) => [entry.name, entry])), dataBytes: end };
}

/** Checks a file's size against what its header describes. @throws FormatError where they differ */
export function checkFileSize(header: SafetensorsHeader, headerBytes: number, fileBytes: number, path: string): void {
  const described = lengthBytes + headerBytes + header.dataBytes;
  if (fileBytes === described) return;
  const what = fileBytes < described ? "the file is cut short" : "the file is longer than it should be";
  throw new FormatError(
    path,
    `${count(fileBytes)} bytes, but its header describes ${count(described)}: ${what}. Nothing was loaded.`,
  );
}

function readMetadata(value: JsonValue, path: string): ReadonlyMap<string, string> {
  if (!isJsonObject(value)) throw new FormatError(path, "__metadata__ is not an object of strings");
  const metadata = new Map<string, string>();
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") throw new FormatError(path, `__metadata__: "${shown(key)}" is not a string`);
    metadata.set(key, text);
  }
  return metadata;
}

function readEntry(name: string, value: JsonValue, path: string): SafetensorsEntry {
  const tensor = `tensor "${shown(name)}"`;
  const fail = (detail: string): never => {
    throw new FormatError(path, `${tensor}: ${detail}. Nothing was loaded.`);
  };
  if (!isJsonObject(value)) return fail("the header does not describe it with an object");
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string") return fail("dtype is missing or not a string");
  const size = storedSize(dtype);
  if (size === undefined) return fail(`dtype "${shown(dtype)}" is not known; known are ${knownStoredTypes()}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) return fail("shape is not a list of sizes (integers from 0)");
  if (shape.length > maxRank) return fail(`shape has ${shape.length} axes; at most ${maxRank} are read`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    return fail("data_offsets is not a pair of byte positions (integers from 0)");
  }
  const [begin = 0, end = 0] = offsets;
  const expected = elementCount([...shape, size]);
  if (expected === undefined) return fail(`shape ${shapeText(shape)} is larger than any file`);
  if (end - begin !== expected) {
    return fail(
      `data_offsets ${begin} to ${end} are ${count(end - begin)} bytes, but ${dtype} of shape ${shapeText(shape)} is ${count(expected)}`,
    );
  }
  return { name, stored: dtype, shape, begin, end };
}

/** What a header must know of a tensor to be written. */
export interface TensorLayout {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** The order of types in a file: widest first, so that every tensor is aligned. It is the reference's order. */
const typeOrder: readonly DType[] = ["f64", "f32", "i32", "bf16", "f16", "u8"];

/**
 * The bytes before the data (length, JSON, spaces up to a multiple of 8) and the order in which the tensors' data must follow:
 * by type, widest first, then by name. The same tensors give the same bytes, those that the reference writes too.
 * @param path the file's path, for messages
 * @throws FormatError for two tensors of one name, a reserved name, a bad shape, or a header above the limit
 */
export function layoutSafetensors<T extends TensorLayout>(
  tensors: readonly T[],
  metadata: Readonly<Record<string, string>> | undefined,
  path: string,
): { readonly prefix: Uint8Array; readonly order: readonly T[]; readonly dataBytes: number } {
  const order = [...tensors].sort(
    (a, b) =>
      typeOrder.indexOf(a.dtype) - typeOrder.indexOf(b.dtype) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  const parts: string[] = [];
  if (metadata !== undefined) {
    const sorted = Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1));
    const pairs = sorted.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    parts.push(`"__metadata__":{${pairs.join(",")}}`);
  }
  const names = new Set<string>(["__metadata__"]);
  let end = 0;
  for (const { name, dtype, shape } of order) {
    if (names.has(name)) {
      const why = name === "__metadata__" ? "a tensor must not have this name" : "two tensors have this name";
      throw new FormatError(path, `cannot write tensor "${shown(name)}": ${why}`);
    }
    names.add(name);
    const bytes = byteLength(dtype, shape);
    if (bytes === undefined)
      throw new FormatError(path, `cannot write tensor "${shown(name)}": bad shape ${shapeText(shape)}`);
    const info = { dtype: storedNames[dtype], shape, data_offsets: [end, end + bytes] };
    parts.push(`${JSON.stringify(name)}:${JSON.stringify(info)}`);
    end += bytes;
  }
  const json = new TextEncoder().encode(`{${parts.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > maxHeaderBytes) throw new FormatError(path, `cannot write: the header would be ${count(padded)} bytes`);
  const prefix = new Uint8Array(lengthBytes + padded).fill(0x20);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(padded), true);
  prefix.set(json, lengthBytes);
  return { prefix, order, dataBytes: end };
}

/** Bytes of a tensor, undefined where the shape is not one. */
export function byteLength(dtype: DType, shape: readonly number[]): number | undefined {
  return shape.every(isSize) ? elementCount([...shape, storedSize(storedNames[dtype]) ?? 1]) : undefined;
}
