// Checkpoint formats: raw little-endian bytes of one stored element type to a host tensor.
// Knows the types that safetensors names and which of them have a host form; knows no file layout.
import type { DType, HostTensor } from "@diffmamba/tensor";
import { count, FormatError, shown } from "./errors.js";

/** Bytes of an element by the name that safetensors gives its type. Sub-byte types are not known here. */
const storedSizes: ReadonlyMap<string, number> = new Map([
  ["F64", 8],
  ["F32", 4],
  ["BF16", 2],
  ["F16", 2],
  ["F8_E4M3", 1],
  ["F8_E5M2", 1],
  ["F8_E8M0", 1],
  ["C64", 8],
  ["I64", 8],
  ["I32", 4],
  ["I16", 2],
  ["I8", 1],
  ["U64", 8],
  ["U32", 4],
  ["U16", 2],
  ["U8", 1],
  ["BOOL", 1],
]);

/** The stored types that have a host form. I64 is read as i32 where every value fits, BOOL as u8. */
const hostTypes: ReadonlyMap<string, DType> = new Map([
  ["F64", "f64"],
  ["F32", "f32"],
  ["BF16", "bf16"],
  ["F16", "f16"],
  ["I64", "i32"],
  ["I32", "i32"],
  ["U8", "u8"],
  ["BOOL", "u8"],
]);

/** The stored name of each host type. */
export const storedNames: Readonly<Record<DType, string>> = {
  f64: "F64",
  f32: "F32",
  bf16: "BF16",
  f16: "F16",
  i32: "I32",
  u8: "U8",
};

/** Bytes of one stored element, or undefined for a type that is not known. */
export function storedSize(stored: string): number | undefined {
  return storedSizes.get(stored);
}

/** The names of the types that `storedSize` knows, for messages. */
export function knownStoredTypes(): string {
  return [...storedSizes.keys()].join(", ");
}

/** The host type of a stored one. @throws FormatError for a type without a host form, naming file, tensor and type */
export function hostType(stored: string, path: string, tensor: string): DType {
  const dtype = hostTypes.get(stored);
  if (dtype === undefined) {
    const readable = [...hostTypes.keys()].join(", ");
    throw new FormatError(
      path,
      `tensor "${shown(tensor)}" has type ${shown(stored)}, which is not read; ${readable} are`,
    );
  }
  return dtype;
}

/**
 * Decodes the elements of one tensor.
 * @param bytes exactly `product(shape)` elements of the stored type, little-endian, row-major; may be kept, not copied,
 *   where it is alone in its buffer and aligned
 * @throws FormatError for a type without a host form, and for an I64 value outside i32
 */
export function decodeElements(
  stored: string,
  bytes: Uint8Array,
  shape: readonly number[],
  path: string,
  tensor: string,
): HostTensor {
  const dtype = hostType(stored, path, tensor);
  const own = ownBytes(bytes);
  switch (dtype) {
    case "f64":
      return { dtype, shape, data: new Float64Array(own) };
    case "f32":
      return { dtype, shape, data: new Float32Array(own) };
    case "bf16":
    case "f16":
      return { dtype, shape, data: new Uint16Array(own) };
    case "u8":
      return { dtype, shape, data: new Uint8Array(own) };
    case "i32":
      return { dtype, shape, data: stored === "I64" ? narrowI64(own, path, tensor) : new Int32Array(own) };
  }
}

/** The buffer that holds these bytes and nothing else; a copy where they are a part of a larger one. */
function ownBytes(bytes: Uint8Array): ArrayBuffer {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength) return buffer;
  return new Uint8Array(bytes).buffer;
}

function narrowI64(buffer: ArrayBuffer, path: string, tensor: string): Int32Array {
  const wide = new BigInt64Array(buffer);
  const out = new Int32Array(wide.length);
  let i = 0;
  for (const value of wide) {
    const narrow = Number(BigInt.asIntN(32, value));
    if (BigInt(narrow) !== value) {
      throw new FormatError(
        path,
        `tensor "${shown(tensor)}" is I64 and is read as i32, but element ${count(i)} is ${value}: outside i32`,
      );
    }
    out[i++] = narrow;
  }
  return out;
}

/** The bytes of a host tensor's elements, a view where the platform is little-endian (every one this runs on is). */
export function elementBytes(data: HostTensor["data"]): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
