// Layer: datasets, tests. The Mersenne twister of the reference's row rotations.
import { describe, expect, it } from "vitest";
import { Mersenne } from "./mersenne.js";

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
