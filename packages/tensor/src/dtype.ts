// Element types: their sizes, their typed arrays, and the plain host form of a tensor.
// Knows no device and no op.

/** Element types. `f64` exists on the reference backend alone; `bf16` and `f16` are storage with f32 arithmetic. */
export type DType = "f32" | "f64" | "bf16" | "f16" | "i32" | "u8";

/** What holds the elements on the host: `bf16` and `f16` as their bit patterns in a Uint16Array. */
export type TypedArray = Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array;

/** A tensor's value on the host: contiguous, row-major. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: TypedArray;
}

export const dtypes: readonly DType[] = ["f32", "f64", "bf16", "f16", "i32", "u8"];

/** Bytes of one element. */
export const bytesPerElement: Readonly<Record<DType, number>> = { f32: 4, f64: 8, bf16: 2, f16: 2, i32: 4, u8: 1 };

/** True for the types that gradients exist for. */
export function isFloat(dtype: DType): boolean {
  return dtype !== "i32" && dtype !== "u8";
}

/** True for the floats of 16 bits. */
export function isHalf(dtype: DType | undefined): dtype is "bf16" | "f16" {
  return dtype === "bf16" || dtype === "f16";
}

/** A typed array of `length` elements over `buffer` from `byteOffset`, which must be aligned to the element. */
export function typedArray(dtype: DType, buffer: ArrayBufferLike, byteOffset: number, length: number): TypedArray {
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer, byteOffset, length);
    case "f64":
      return new Float64Array(buffer, byteOffset, length);
    case "bf16":
    case "f16":
      return new Uint16Array(buffer, byteOffset, length);
    case "i32":
      return new Int32Array(buffer, byteOffset, length);
    case "u8":
      return new Uint8Array(buffer, byteOffset, length);
  }
}
