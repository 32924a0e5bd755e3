// Layer: conformance. What a case's inputs hold: seeded numbers of a range, whole numbers, indices, given values.
// A value depends on the case's name and the input's name alone, never on the order of drawing.
// Knows random streams and element types. Knows no op and no device.

import { RandomStream } from "@diffmamba/random";
import {
  bf16ToF32Array,
  type DType,
  f16ToF32Array,
  f32ToBf16Array,
  f32ToF16Array,
  isFloat,
  sizeOf,
} from "@diffmamba/tensor";
import { statisticsType } from "../compare.js";

/** The element type of an input: "main" is the one under test, "statistic" is f32 (f64 with f64). */
export type InputType = "main" | "statistic" | "i32" | "u8";

/** One input of a case. */
export interface InputSpec {
  readonly shape: readonly number[];
  readonly type: InputType;
  /** Whether its gradient is tested. */
  readonly differentiable: boolean;
  readonly draw: (stream: RandomStream, size: number) => ArrayLike<number>;
}

/** Uniform numbers in [low, high), of the type under test. */
export function uniform(shape: readonly number[], low = -1, high = 1): InputSpec {
  const draw = (stream: RandomStream, size: number) => stream.uniform(new Float64Array(size), low, high);
  return { shape, type: "main", differentiable: true, draw };
}

/** Uniform numbers in [low, high) in the type of statistics: parameters such as A, and states. */
export function statistic(shape: readonly number[], low = -1, high = 1): InputSpec {
  return { ...uniform(shape, low, high), type: "statistic" };
}

/** Numbers of either sign with a magnitude in [low, high): away from a kink or a pole at 0. */
export function away(shape: readonly number[], low = 0.2, high = 2): InputSpec {
  const draw = (stream: RandomStream, size: number) => {
    const words = stream.words(new Uint32Array(size), 1);
    return stream.uniform(new Float64Array(size), low, high).map((x, i) => (words[i] & 1 ? -x : x));
  };
  return { shape, type: "main", differentiable: true, draw };
}

/** Numbers of [-1, 1) in random order, evenly spaced, so that no two of up to 256 are equal in any type. */
export function distinct(shape: readonly number[]): InputSpec {
  const draw = (stream: RandomStream, size: number) => {
    const keys = stream.words(new Uint32Array(size));
    const order = Array.from(keys.keys()).sort((a, b) => keys[a] - keys[b]);
    return order.map((rank) => (2 * rank + 1) / size - 1);
  };
  return { shape, type: "main", differentiable: true, draw };
}

/** Whole numbers from `low` to `high`, both included, of the type under test, which may be an integer. No gradient. */
export function whole(shape: readonly number[], low: number, high: number): InputSpec {
  const draw = (stream: RandomStream, size: number) =>
    stream.uniform(new Float64Array(size), low, high + 1).map((x) => Math.floor(x));
  return { shape, type: "main", differentiable: false, draw };
}

/** Indices below `count`, i32. */
export function index(shape: readonly number[], count: number): InputSpec {
  return { ...whole(shape, 0, count - 1), type: "i32" };
}

/** Zeros and ones, u8. */
export function mask(shape: readonly number[]): InputSpec {
  return { ...whole(shape, 0, 1), type: "u8" };
}

/** These values, in row-major order. Those of the type under test are differentiable. */
export function given(shape: readonly number[], values: readonly number[], type: InputType = "main"): InputSpec {
  return { shape, type, differentiable: type === "main" || type === "statistic", draw: () => values };
}

/** The same input without a gradient. */
export function constant(input: InputSpec): InputSpec {
  return { ...input, differentiable: false };
}

/** The element type of an input where the type under test is `dtype`. */
export function typeOf(input: InputSpec, dtype: DType): DType {
  if (input.type === "main") return dtype;
  return input.type === "statistic" ? statisticsType(dtype) : input.type;
}

/** The nearest numbers of an element type. */
export function round(values: ArrayLike<number>, dtype: DType): Float64Array {
  if (dtype === "f32") return Float64Array.from(Float32Array.from(values));
  if (dtype === "bf16") return Float64Array.from(bf16ToF32Array(f32ToBf16Array(values)));
  if (dtype === "f16") return Float64Array.from(f16ToF32Array(f32ToF16Array(values)));
  return Float64Array.from(values);
}

/** An input with its numbers, already rounded to its type: what every device is given alike. */
export interface DrawnInput {
  readonly spec: InputSpec;
  readonly values: Float64Array;
}

/** The numbers of all inputs of a case in the type `dtype`. */
export function drawInputs(
  caseName: string,
  inputs: Readonly<Record<string, InputSpec>>,
  dtype: DType,
): Record<string, DrawnInput> {
  const drawn = Object.entries(inputs).map(([name, spec]) => {
    const values = spec.draw(new RandomStream(1, `${caseName}/${name}`), sizeOf(spec.shape));
    return [name, { spec, values: round(values, typeOf(spec, dtype)) }];
  });
  return Object.fromEntries(drawn);
}

/** True where the input has a gradient in the type `dtype`. */
export function hasGradient(input: InputSpec, dtype: DType): boolean {
  return input.differentiable && isFloat(typeOf(input, dtype));
}

/**
 * Fixed weights of an output in the loss whose gradient is tested: of either sign, at least 1/2, and exact in every type.
 */
export function lossWeights(caseName: string, output: string, size: number): Float64Array {
  const words = new RandomStream(2, `${caseName}/${output}`).words(new Uint32Array(size));
  return Float64Array.from(words, (word) => ((64 + (word & 63)) / 128) * (word & 64 ? -1 : 1));
}
