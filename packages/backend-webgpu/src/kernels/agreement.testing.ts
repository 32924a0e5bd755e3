// For tests: runs a computation here and on the reference, and compares the results: floats closely, infinities and NaN as such.

import { type Device, reference, scope, type Tensor } from "@diffmamba/tensor";
import { expect } from "vitest";

type Computation = (device: Device) => Tensor;

async function valuesOf(device: Device, compute: Computation): Promise<Float64Array> {
  using result = scope(() => compute(device).contiguous().alias());
  return Float64Array.from(await result.data());
}

/**
 * Expects elements of `compute` on `device` to be those of the reference: within `tolerance` of the larger of 1e-30 and the expected
 * value, exactly where that is 0; what is not finite must be the same.
 */
export async function expectAgreement(device: Device, compute: Computation, tolerance = 0): Promise<void> {
  const actual = await valuesOf(device, compute);
  const expected = await valuesOf(reference(), compute);
  expect(actual.length).toBe(expected.length);
  const wrong: string[] = [];
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i], expected[i]];
    const same =
      Number.isFinite(e) && Number.isFinite(a)
        ? Math.abs(a - e) <= tolerance * Math.max(Math.abs(e), 1e-30)
        : Object.is(a, e);
    // Numbers below 2^-126 may be flushed to 0.
    if (!same && !(Math.abs(e) < 1.2e-38 && Math.abs(a) < 1.2e-38)) wrong.push(`element ${i}: ${a}, expected ${e}`);
  }
  expect(wrong.slice(0, 5)).toEqual([]);
}

/** Numbers that look random, of [low, high). */
export function scattered(size: number, low = -1, high = 1): Float32Array {
  let state = 12345;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return low + ((high - low) * state) / 2 ** 32;
  });
}

/** {@link scattered}, as whole numbers from `low` to `high`. */
export function scatteredWhole(size: number, low: number, high: number): number[] {
  return Array.from(scattered(size, low, high + 1), Math.floor);
}
