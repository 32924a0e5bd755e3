import { describe, expect, it } from "vitest";
import { constant, cosine, linear, type Schedule, wsd } from "./schedule.js";

const at = (schedule: Schedule, ...steps: number[]) => steps.map((step) => schedule(step));

describe("schedules", () => {
  it("rise linearly from 0 to the peak, which is reached at step `warmup`", () => {
    const options = { warmup: 4, steps: 100, decay: 10 };
    for (const schedule of [constant(2, options), linear(2, options), cosine(2, options), wsd(2, options)]) {
      expect(at(schedule, 0, 1, 2, 3, 4)).toEqual([0, 0.5, 1, 1.5, 2]);
    }
  });

  it("begin at the peak without a warm-up", () => {
    for (const schedule of [
      constant(2),
      linear(2, { steps: 9 }),
      cosine(2, { steps: 9 }),
      wsd(2, { steps: 9, decay: 3 }),
    ]) {
      expect(schedule(0)).toBe(2);
    }
  });

  it("constant stays", () => {
    expect(at(constant(3, { warmup: 2 }), 2, 1e9)).toEqual([3, 3]);
  });

  it("linear goes straight to its floor and stays there", () => {
    const schedule = linear(2, { warmup: 10, steps: 110, floor: 1 });
    expect(at(schedule, 10, 60, 85, 110, 1000)).toEqual([2, 1.5, 1.25, 1, 1]);
  });

  it("cosine is half a cosine to its floor", () => {
    const schedule = cosine(2, { warmup: 10, steps: 110, floor: 0.2 });
    expect(schedule(60)).toBeCloseTo(1.1, 12);
    expect(schedule(10 + 100 / 3)).toBeCloseTo(0.2 + 1.8 * 0.75, 12);
    expect(at(schedule, 110, 5000)).toEqual([expect.closeTo(0.2, 12), expect.closeTo(0.2, 12)]);
    expect(cosine(1, { steps: 100 })(100)).toBeCloseTo(0, 12);
  });

  it("wsd keeps the peak until the last `decay` steps", () => {
    const schedule = wsd(2, { warmup: 10, steps: 100, decay: 20, floor: 1 });
    expect(at(schedule, 10, 79, 80, 90, 100, 101)).toEqual([2, 2, 2, 1.5, 1, 1]);
    // A decay longer than what the warm-up leaves begins after it.
    expect(at(wsd(2, { warmup: 10, steps: 20, decay: 50 }), 10, 15, 20)).toEqual([2, 1, 0]);
  });

  it("never leave the range, whatever the corner", () => {
    for (const options of [
      { warmup: 0, steps: 0, decay: 0 },
      { warmup: 5, steps: 5, decay: 0 },
      { warmup: 9, steps: 5, decay: 2 },
    ]) {
      for (const schedule of [linear(1, options), cosine(1, options), wsd(1, options)]) {
        for (let step = 0; step < 12; step++) {
          expect(schedule(step)).toBeGreaterThanOrEqual(0);
          expect(schedule(step)).toBeLessThanOrEqual(1);
        }
      }
    }
  });
});
