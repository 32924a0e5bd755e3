import { describe, expect, it } from "vitest";
import { philox4x32, RandomStream, streamKey } from "./index.js";

describe("philox4x32", () => {
  const hex = (words: Uint32Array) => [...words].map((word) => word.toString(16).padStart(8, "0")).join(" ");
  const block = (counter: [number, number, number, number], key: [number, number]) => {
    const out = new Uint32Array(4);
    philox4x32(counter, key, out);
    return hex(out);
  };
  const ones = 0xffffffff;

  it("gives the known answers of the Random123 library", () => {
    expect(block([0, 0, 0, 0], [0, 0])).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    expect(block([ones, ones, ones, ones], [ones, ones])).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
    expect(block([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toBe(
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    );
  });
});

describe("RandomStream", () => {
  it("depends on seed, name, step and element, and on nothing drawn before", () => {
    const stream = new RandomStream(7, "a");
    const value = stream.at(5, 3);
    stream.at(100, 100);
    expect(new RandomStream(7, "a").at(5, 3)).toBe(value);
    const others = [
      new RandomStream(8, "a").at(5, 3),
      new RandomStream(7 + 2 ** 32, "a").at(5, 3),
      new RandomStream(7, "b").at(5, 3),
      stream.at(5, 4),
      stream.at(5, 3 + 2 ** 32),
      stream.at(6, 3),
    ];
    expect(new Set([value, ...others]).size).toBe(7);
  });

  it("gives a longer array the same beginning as a shorter one", () => {
    const stream = new RandomStream(1, "x");
    const long = stream.words(new Uint32Array(11));
    expect([...stream.words(new Uint32Array(6))]).toEqual([...long.subarray(0, 6)]);
  });

  it("is even over its range, and never reaches its end", () => {
    const stream = new RandomStream(1, "even");
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 20_000; i++) counts[stream.integer(10, i)] += 1;
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(200); // 4.7 standard deviations
    const uniform = stream.uniform(new Float64Array(20_000), -1, 3);
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(-1);
    expect(Math.max(...uniform)).toBeLessThan(3);
    expect(Math.abs(uniform.reduce((a, b) => a + b) / 20_000 - 1)).toBeLessThan(0.04);
  });

  it("is normal: mean 0, variance 1, no third moment, a fourth of 3", () => {
    const x = new RandomStream(3, "normal").normal(new Float64Array(100_001));
    const moment = (k: number) => x.reduce((sum, v) => sum + v ** k, 0) / x.length;
    expect(Math.abs(moment(1))).toBeLessThan(0.015);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.02);
    expect(Math.abs(moment(3))).toBeLessThan(0.05);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.15);
  });

  it("refuses a seed that is none", () => {
    expect(() => new RandomStream(-1, "a")).toThrow("seed: -1 is no seed");
    expect(() => streamKey(1.5, "a")).toThrow(RangeError);
  });
});
