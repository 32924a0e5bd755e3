// A token that is kept beside the state: when the state changes, and what is refused. The numbers are the conformance suite's.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Device, keptTokens, reference, ssdDeferred, ssdSettle, type Tensor } from "./index.js";

const shape = { batch: 1, heads: 1, headDim: 1, groups: 1, dState: 1 };

let device: Device;
let state: Tensor;
let count: Tensor;
beforeEach(() => {
  device = reference({ poison: true });
  state = device.full([1, 1, 1, 1], 8);
  count = device.zeros([], "i32");
});
afterEach(() => device.dispose());

/** One channel and one state: h = h / 2 + ln 2, y = h. */
const inputs = () => {
  const ones = device.ones([1, 1, 1, 1]);
  return { x: ones, dt: device.zeros([1, 1, 1]), A: device.full([1], -1), B: ones, C: ones, initialState: state };
};

describe("ssdDeferred", () => {
  it("leaves the state alone but for every K-th token, and for settling", async () => {
    const kept = keptTokens(shape, 2, "f32", count);
    let h = 8;
    const states: number[] = [];
    for (let t = 0; t < 3; t++) {
      h = h / 2 + Math.LN2;
      expect(await ssdDeferred(inputs(), kept).item()).toBeCloseTo(h, 5);
      count.addInPlace(device.full([], 1, "i32"));
      states.push(await state.item());
    }
    expect(states).toEqual([8, expect.closeTo(2 + 1.5 * Math.LN2, 5), states[1]]);
    ssdSettle(state, inputs().A, kept);
    expect(await state.item()).toBeCloseTo(h, 5);
  });

  it("says what does not fit", () => {
    const kept = keptTokens(shape, 2, "f32", count);
    const lengths = device.full([1], 1, "i32");
    expect(() => ssdDeferred(inputs(), kept, { lengths })).toThrow("every row has one token here");
    const two = { ...inputs(), x: device.ones([1, 2, 1, 1]) };
    expect(() => ssdDeferred(two, kept)).toThrow("ssdDeferred: x is (1, 2, 1, 1); it must be (1, 1, 1, 1).");
    expect(() => ssdDeferred(inputs(), keptTokens(shape, 0, "f32", count))).toThrow("give at least one");
    expect(() => ssdDeferred(inputs(), keptTokens(shape, 2, "bf16", count))).toThrow("the element types differ");
    expect(() => ssdSettle(device.zeros([1, 1, 1, 1], "i32"), inputs().A, kept)).toThrow("they must be of f32");
    Object.defineProperty(device.backend.kernels, "ssdSettle", { value: undefined });
    expect(() => ssdDeferred(inputs(), kept)).toThrow("ssdDeferred: the backend reference has no such kernel.");
  });
});
