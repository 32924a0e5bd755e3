import { describe, expect, it } from "vitest";
import {
  assertChecks,
  check,
  checkThrows,
  compareBits,
  compareExactly,
  compareValues,
  relativeError,
  tolerances,
} from "./compare.js";

const row = (...data: number[]) => ({ shape: [data.length], data });

describe("the measure", () => {
  it("is the RMS of the difference over that of what is expected", () => {
    expect(relativeError([1, 2, 2], [1, 2, 3])).toBeCloseTo(1 / Math.sqrt(14), 12);
    expect(relativeError([], [])).toBe(0);
  });

  it("is absolute where zeros are expected, and then at most 1e-6", () => {
    expect(relativeError([3e-7], [0])).toBeCloseTo(3e-7, 12);
    expect(compareValues("y", row(9e-7, 0), row(0, 0), 2e-2).passed).toBe(true);
    expect(compareValues("y", row(9e-6, 0), row(0, 0), 2e-2).passed).toBe(false);
  });

  it("fails on NaN on either side, and on Infinity", () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(compareValues("y", row(1, value), row(1, 2), 1).passed).toBe(false);
      expect(compareValues("y", row(1, 2), row(1, value), 1).passed).toBe(false);
    }
    expect(compareValues("y", row(1, Number.NaN), row(1, 2), 1).detail).toContain(
      "at element 1 of (2): NaN, expected 2",
    );
  });

  it("fails on another shape, even with the same numbers", () => {
    const wrong = compareValues("y", { shape: [1, 2], data: [1, 2] }, row(1, 2), 1);
    expect(wrong).toMatchObject({ passed: false, detail: "the shape is (1, 2), expected (2)" });
    expect(compareExactly("y", { shape: [1, 2], data: [1, 2] }, row(1, 2)).passed).toBe(false);
  });

  it("passes exactly up to the tolerance", () => {
    expect(compareValues("y", row(1.01), row(1), 0.0101).passed).toBe(true);
    expect(compareValues("y", row(1.01), row(1), 0.0099).passed).toBe(false);
  });
});

describe("other comparisons", () => {
  it("compares integers and bits one by one", () => {
    expect(compareExactly("y", row(1, 2), row(1, 3)).detail).toBe("element 1 is 2, expected 3");
    const bits = (...data: number[]) => ({
      dtype: "f32" as const,
      shape: [data.length],
      data: Float32Array.from(data),
    });
    expect(compareBits("y", bits(0, Number.NaN), bits(0, Number.NaN)).passed).toBe(true);
    expect(compareBits("y", bits(0), bits(-0)).detail).toContain("at element 0: 0 and 0");
    expect(compareBits("y", bits(1), { ...bits(1), dtype: "i32" }).passed).toBe(false);
  });

  it("wants an error where one is due", async () => {
    const fails = () => {
      throw new Error("row 7 of 3");
    };
    expect((await checkThrows("y", fails, /row 7/)).passed).toBe(true);
    expect((await checkThrows("y", fails, /row 8/)).detail).toContain('"row 7 of 3" does not match');
    expect((await checkThrows("y", () => 1, /row/)).detail).toContain("nothing was thrown");
  });

  it("names every failure, and takes no checks for a failure", () => {
    expect(() => assertChecks("a case", [check("a", true, ""), check("b", true, "")])).not.toThrow();
    expect(() => assertChecks("a case", [])).toThrow("a case: 1 failed\n  checks: nothing was compared");
    const bad = [compareValues("y", row(2), row(1), 1e-5), check("z", true, ""), check("w", false, "is wrong")];
    expect(() => assertChecks("a case", bad)).toThrow(
      "a case: 2 failed\n  y: relative RMS error 1.00e+0: more than 0.00001; at element 0 of (1): 2, expected 1\n  w: is wrong",
    );
  });
});

describe("the tolerances", () => {
  it("are those that the project states", () => {
    expect(tolerances.golden).toEqual({
      f64: { forward: 2e-7, gradient: 2e-7 },
      f32: { forward: 1e-5, gradient: 1e-4 },
      bf16: { forward: 2e-2, gradient: 2e-2 },
      f16: { forward: 2e-2, gradient: 2e-2 },
    });
    for (const table of [tolerances.oracle, tolerances.equal]) {
      expect(table.f64.gradient).toBeLessThanOrEqual(1e-9);
      expect([table.f32, table.bf16, table.f16]).toEqual([
        tolerances.golden.f32,
        tolerances.golden.bf16,
        tolerances.golden.f16,
      ]);
    }
    expect(tolerances.differences).toBeLessThanOrEqual(1e-6);
    expect(tolerances.saturated).toBe(1e-6);
  });
});
