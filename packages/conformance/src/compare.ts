// Layer: conformance. The one measure of the suite, all of its tolerances, and what a failed comparison looks like.
// Knows shapes and numbers. Knows no op, no device and no test runner.

import { bf16ToF32Array, type DType, f16ToF32Array, type HostTensor, type TypedArray } from "@diffmamba/tensor";

/** The element types that computations are tested in. */
export type FloatType = "f64" | "f32" | "bf16" | "f16";

export const floatTypes: readonly FloatType[] = ["f64", "f32", "bf16", "f16"];

/** Gradients are held to their own tolerance: they are sums of more and larger terms than outputs. */
export type Quantity = "forward" | "gradient";

type Tolerances = Readonly<Record<FloatType, Readonly<Record<Quantity, number>>>>;

const both = (tolerance: number) => ({ forward: tolerance, gradient: tolerance });
const single = { forward: 1e-5, gradient: 1e-4 };
const half = both(2e-2);

/**
 * Every tolerance of the suite, on the relative RMS error ({@link relativeError}).
 * `golden`: against stored values, which are rounded to f32. `oracle`: against the reference in f64, on the same inputs.
 * `equal`: two ways to compute one thing on one device. `differences`: gradients against central differences in f64.
 * `saturated`: the derivative of the sigmoid where it is almost 0.
 */
export const tolerances: {
  readonly golden: Tolerances;
  readonly oracle: Tolerances;
  readonly equal: Tolerances;
  readonly differences: number;
  readonly saturated: number;
} = {
  golden: { f64: both(2e-7), f32: single, bf16: half, f16: half },
  oracle: { f64: both(1e-12), f32: single, bf16: half, f16: half },
  equal: { f64: both(1e-9), f32: single, bf16: half, f16: half },
  differences: 1e-8,
  saturated: 1e-6,
};

/** Below this RMS the expected values count as zero, and the error is absolute. */
export const ZERO_RMS = 1e-6;

/** Numbers with a shape, in row-major order. */
export interface Values {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

/** The outcome of one comparison. */
export interface Check {
  /** What was compared: "y", "gradient of x" … */
  readonly name: string;
  readonly passed: boolean;
  /** The measured error; 0 or Infinity where only yes or no is asked. */
  readonly error: number;
  /** The largest error that passes. */
  readonly tolerance: number;
  /** What is wrong, in words, where it is. */
  readonly detail?: string;
}

/** The elements of a host tensor as numbers: bit patterns of bf16 and f16 decoded. */
export function decode({ dtype, shape, data }: HostTensor): Values {
  if (!(data instanceof Uint16Array)) return { shape, data };
  return { shape, data: dtype === "bf16" ? bf16ToF32Array(data) : f16ToF32Array(data) };
}

/**
 * rms(actual - expected) / rms(expected) or, where rms(expected) < 1e-6, rms(actual - expected) alone; NaN where either
 * holds NaN, 0 for no elements. Both have the same number of elements.
 */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  const size = expected.length;
  if (size === 0) return 0;
  let squares = 0;
  let differences = 0;
  for (let i = 0; i < size; i++) {
    const difference = actual[i] - expected[i];
    squares += expected[i] * expected[i];
    differences += difference * difference;
  }
  const scale = Math.sqrt(squares / size);
  const error = Math.sqrt(differences / size);
  return scale < ZERO_RMS ? error : error / scale;
}

function describe(actual: Values, expected: Values, limit: number): string {
  const size = expected.data.length;
  let worst = 0;
  for (let i = 0; i < size; i++) {
    const [a, b] = [actual.data[i], expected.data[i]];
    if (Number.isNaN(a) || Number.isNaN(b)) {
      worst = i;
      break;
    }
    if (Math.abs(a - b) > Math.abs(actual.data[worst] - expected.data[worst])) worst = i;
  }
  const at = `element ${worst} of (${expected.shape.join(", ")})`;
  return `more than ${limit}; at ${at}: ${actual.data[worst]}, expected ${expected.data[worst]}`;
}

function sameShape(actual: readonly number[], expected: readonly number[]): boolean {
  return actual.length === expected.length && actual.every((n, i) => n === expected[i]);
}

function wrongShape(name: string, actual: readonly number[], expected: readonly number[], tolerance: number): Check {
  const detail = `the shape is (${actual.join(", ")}), expected (${expected.join(", ")})`;
  return { name, passed: false, error: Number.POSITIVE_INFINITY, tolerance, detail };
}

/** Compares by {@link relativeError}. Other shapes and NaN fail. */
export function compareValues(name: string, actual: Values, expected: Values, tolerance: number): Check {
  if (!sameShape(actual.shape, expected.shape) || actual.data.length !== expected.data.length) {
    return wrongShape(name, actual.shape, expected.shape, tolerance);
  }
  const error = relativeError(actual.data, expected.data);
  let squares = 0;
  for (let i = 0; i < expected.data.length; i++) squares += expected.data[i] ** 2;
  const isZero = Math.sqrt(squares / Math.max(expected.data.length, 1)) < ZERO_RMS;
  const limit = isZero ? Math.min(ZERO_RMS, tolerance) : tolerance;
  const passed = error <= limit;
  const detail = passed ? undefined : describe(actual, expected, limit);
  return { name, passed, error, tolerance: limit, ...(detail && { detail }) };
}

/** Passes where every element is the same number (NaN is no number). For integers, masks and exact results. */
export function compareExactly(name: string, actual: Values, expected: Values): Check {
  if (!sameShape(actual.shape, expected.shape)) return wrongShape(name, actual.shape, expected.shape, 0);
  for (let i = 0; i < expected.data.length; i++) {
    if (actual.data[i] === expected.data[i]) continue;
    const detail = `element ${i} is ${actual.data[i]}, expected ${expected.data[i]}`;
    return { name, passed: false, error: Number.POSITIVE_INFINITY, tolerance: 0, detail };
  }
  return { name, passed: true, error: 0, tolerance: 0 };
}

function bytesOf(data: TypedArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Passes where both are the same bit for bit. */
export function compareBits(name: string, a: HostTensor, b: HostTensor): Check {
  const [left, right] = [bytesOf(a.data), bytesOf(b.data)];
  const same = a.dtype === b.dtype && sameShape(a.shape, b.shape) && left.every((byte, i) => byte === right[i]);
  if (same) return { name, passed: true, error: 0, tolerance: 0 };
  const detail = `two runs gave different bits${describeBits(a, b)}`;
  return { name, passed: false, error: Number.POSITIVE_INFINITY, tolerance: 0, detail };
}

function describeBits(a: HostTensor, b: HostTensor): string {
  if (a.dtype !== b.dtype || !sameShape(a.shape, b.shape)) {
    return `: ${a.dtype} (${a.shape.join(", ")}) and ${b.dtype} (${b.shape.join(", ")})`;
  }
  const i = a.data.findIndex((value, k) => !Object.is(value, b.data[k]));
  return i < 0 ? " (of NaN)" : ` at element ${i}: ${a.data[i]} and ${b.data[i]}`;
}

/** A yes or no. */
export function check(name: string, passed: boolean, detail: string): Check {
  return { name, passed, error: passed ? 0 : Number.POSITIVE_INFINITY, tolerance: 0, ...(!passed && { detail }) };
}

/** Passes if `action` throws, or rejects with, an error whose message matches. */
export async function checkThrows(name: string, action: () => unknown, message: RegExp): Promise<Check> {
  try {
    await action();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return check(name, message.test(text), `the message "${text}" does not match ${message}`);
  }
  return check(name, false, `nothing was thrown; expected an error that matches ${message}`);
}

/** A test of the suite that did not pass. The message lists every check that failed. */
export class ConformanceError extends Error {
  override readonly name = "ConformanceError";
  constructor(
    readonly test: string,
    readonly failures: readonly Check[],
  ) {
    const lines = failures.map(({ name, error, detail }) => {
      const measured =
        Number.isFinite(error) || Number.isNaN(error) ? `relative RMS error ${formatError(error)}: ` : "";
      return `  ${name}: ${measured}${detail}`;
    });
    super(`${test}: ${failures.length} failed\n${lines.join("\n")}`);
  }
}

function formatError(error: number): string {
  return Number.isNaN(error) ? "NaN" : error.toExponential(2);
}

/** @throws ConformanceError unless there is at least one check and all passed */
export function assertChecks(test: string, checks: readonly Check[]): void {
  const failures =
    checks.length === 0 ? [check("checks", false, "nothing was compared")] : checks.filter((c) => !c.passed);
  if (failures.length > 0) throw new ConformanceError(test, failures);
}

/** The type of states, statistics and losses beside values of a type: f32, but f64 with f64. */
export function statisticsType(dtype: DType): "f32" | "f64" {
  return dtype === "f64" ? "f64" : "f32";
}

export function isFloatType(dtype: DType): dtype is FloatType {
  return (floatTypes as readonly DType[]).includes(dtype);
}
