// Conversion between f32 and the two 16-bit floats, one element or a whole array, rounding to nearest even.
// Knows bit patterns and nothing else.

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** The bf16 bit pattern nearest to a number (ties to even; NaN stays NaN). */
export function f32ToBf16(value: number): number {
  float[0] = value;
  const bits = word[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The number a bf16 bit pattern stands for. */
export function bf16ToF32(bits: number): number {
  word[0] = bits << 16;
  return float[0];
}

function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

/** The f16 bit pattern nearest to a number (ties to even; overflow gives infinity). */
export function f32ToF16(value: number): number {
  float[0] = value;
  const bits = word[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude < 0x38800000) return sign | roundHalfEven(Math.abs(float[0]) * 16777216); // below 2^-14: units of 2^-24
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** The number an f16 bit pattern stands for. */
export function f16ToF32(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function mapArray(source: ArrayLike<number>, out: Float32Array | Uint16Array, convert: (x: number) => number): void {
  for (let i = 0; i < source.length; i++) out[i] = convert(source[i]);
}

/** Elementwise {@link bf16ToF32}. */
export function bf16ToF32Array(source: Uint16Array): Float32Array {
  const out = new Float32Array(source.length);
  mapArray(source, out, bf16ToF32);
  return out;
}

/** Elementwise {@link f32ToBf16}. */
export function f32ToBf16Array(source: ArrayLike<number>): Uint16Array {
  const out = new Uint16Array(source.length);
  mapArray(source, out, f32ToBf16);
  return out;
}

/** Elementwise {@link f16ToF32}. */
export function f16ToF32Array(source: Uint16Array): Float32Array {
  const out = new Float32Array(source.length);
  mapArray(source, out, f16ToF32);
  return out;
}

/** Elementwise {@link f32ToF16}. */
export function f32ToF16Array(source: ArrayLike<number>): Uint16Array {
  const out = new Uint16Array(source.length);
  mapArray(source, out, f32ToF16);
  return out;
}
