// The number of threads where nobody says one.

import { availableParallelism } from "node:os";
import { describe, expect, it } from "vitest";
import { defaultThreads, quotaOf } from "./threads.js";

describe("the number of threads where nobody says one", () => {
  it("is a whole number, and no more than the processors", () => {
    expect(Number.isInteger(defaultThreads())).toBe(true);
    expect(defaultThreads()).toBeGreaterThanOrEqual(1);
    expect(defaultThreads()).toBeLessThanOrEqual(availableParallelism());
  });

  it.each([
    ["max 100000\n", Number.POSITIVE_INFINITY],
    ["200000 100000\n", 2],
    ["50000 100000\n", 0.5],
    ["", Number.POSITIVE_INFINITY],
    ["nonsense", Number.POSITIVE_INFINITY],
  ])("respects what a container may use: %j is %d processors", (cpuMax, quota) => {
    expect(quotaOf(cpuMax)).toBe(quota);
  });
});
