// Layer: datasets, tests. Random numbers: the published known-answer vectors, and what makes a stream a stream.
import { describe, expect, it } from "vitest";
import { Mersenne } from "./mersenne.js";
import { philox4x32, RandomStream } from "./philox.js";

describe("philox4x32", () => {
  const hex = (words: readonly number[]) => words.map((word) => word.toString(16).padStart(8, "0")).join(" ");
  const ones = 0xffffffff;

  it("gives the known answers of the Random123 library", () => {
    expect(hex(philox4x32([0, 0, 0, 0], [0, 0]))).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    expect(hex(philox4x32([ones, ones, ones, ones], [ones, ones]))).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
    expect(hex(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]))).toBe(
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    );
  });
});

describe("RandomStream", () => {
  it("depends on seed, name, step and element, and on nothing else", () => {
    const stream = new RandomStream(7, "a");
    const value = stream.uniform(3, 5);
    stream.uniform(100, 100);
    expect(new RandomStream(7, "a").uniform(3, 5)).toBe(value);
    const others = [
      new RandomStream(8, "a").uniform(3, 5),
      new RandomStream(7 + 2 ** 32, "a").uniform(3, 5),
      new RandomStream(7, "b").uniform(3, 5),
      stream.uniform(4, 5),
      stream.uniform(3 + 2 ** 32, 5),
      stream.uniform(3, 6),
    ];
    expect(new Set([value, ...others]).size).toBe(7);
  });

  it("is even over its range, and never reaches its end", () => {
    const stream = new RandomStream(1, "even");
    const counts = new Array(10).fill(0);
    let sum = 0;
    for (let i = 0; i < 20_000; i++) {
      counts[stream.integer(0, i, 10)] += 1;
      sum += stream.uniform(1, i);
    }
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(200); // 4.7 standard deviations
    expect(Math.abs(sum / 20_000 - 0.5)).toBeLessThan(0.01);
  });

  it("refuses a seed that is none", () => {
    expect(() => new RandomStream(-1, "a")).toThrow("a seed is a whole number from 0 on, got -1");
    expect(() => new RandomStream(1.5, "a")).toThrow(RangeError);
  });
});

describe("Mersenne", () => {
  it("gives the standard's numbers", () => {
    // The C++ standard: the 10,000th number of mt19937 with its default seed.
    const random = new Mersenne(5489);
    expect(random.word()).toBe(3499211612);
    for (let i = 2; i < 10_000; i++) random.word();
    expect(random.word()).toBe(4123659995);
  });

  it("draws what PyTorch draws: manual_seed(0), randint(10, (5,))", () => {
    const random = new Mersenne(0);
    expect(Array.from({ length: 5 }, () => random.word() % 10)).toEqual([4, 9, 3, 0, 3]);
  });
});
