import { RandomStream } from "@diffmamba/random";
import { describe, expect, it } from "vitest";
import { constant, fanIn, type Initializer, normal, ones, scaled, uniform, zeros } from "./init.js";

const count = 40_000;

function moments(initialize: Initializer) {
  const values = new Float64Array(count);
  initialize(values, [count], new RandomStream(3, "weights"));
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  const fourth = values.reduce((sum, value) => sum + (value - mean) ** 4, 0) / count;
  return { mean, std: Math.sqrt(variance), kurtosis: fourth / variance ** 2, values };
}

describe("initialisers", () => {
  it("normal has its mean, its deviation and normal tails", () => {
    const { mean, std, kurtosis } = moments(normal(0.02, 1));
    expect(mean).toBeCloseTo(1, 3);
    expect(std / 0.02).toBeCloseTo(1, 1.5);
    expect(kurtosis).toBeCloseTo(3, 0.7);
  });

  it("uniform fills its range evenly", () => {
    const { mean, std, values } = moments(uniform(-1, 3));
    expect(mean).toBeCloseTo(1, 1.5);
    expect(std).toBeCloseTo(4 / Math.sqrt(12), 1.5);
    expect(Math.min(...values.slice(0, 20_000))).toBeGreaterThanOrEqual(-1);
    expect(Math.max(...values.slice(0, 20_000))).toBeLessThan(3);
    const quarter = values.filter((value) => value < 0).length / count;
    expect(quarter).toBeCloseTo(0.25, 1.7);
  });

  it("fanIn is PyTorch's U(+-1/sqrt(size)), of deviation 1/sqrt(3 size)", () => {
    const { mean, std, values } = moments(fanIn(16));
    expect(mean).toBeCloseTo(0, 2);
    expect(std).toBeCloseTo(1 / Math.sqrt(48), 2);
    expect(values.every((value) => Math.abs(value) <= 0.25)).toBe(true);
  });

  it("constants are constants, and scaled multiplies", () => {
    expect(new Set(moments(zeros).values)).toEqual(new Set([0]));
    expect(new Set(moments(ones).values)).toEqual(new Set([1]));
    expect(new Set(moments(scaled(constant(3), 0.5)).values)).toEqual(new Set([1.5]));
    const [plain, half] = [moments(normal(1)).values, moments(scaled(normal(1), 0.5)).values];
    expect([...half.slice(0, 100)]).toEqual([...plain.slice(0, 100)].map((value) => value / 2));
  });
});
