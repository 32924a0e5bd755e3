// Layer: tests of the reference backend. The causal convolution against goldens, and what its state holds.

import { describe, expect, it } from "vitest";
import {
  expectGradients,
  expectSamples,
  place,
  placeInts,
  type Routine,
  randomNumbers,
  runBackward,
  runForward,
  type Samples,
  sample,
  transpose,
  upstreamOf,
} from "./checks.testing.js";
import { golden } from "./golden.testing.js";
import { routines } from "./routines.js";

function routineFor({ x, weight }: Samples, activation: "silu" | "none", fixed: Routine["fixed"] = {}): Routine {
  return {
    forward: routines.causalConv1d,
    backward: routines.causalConv1dBackward,
    options: { activation },
    outputs: { y: x.shape, finalState: [x.shape[0], ...weight.shape] },
    saved: {},
    rows: { x: 1, y: 1 },
    fixed,
  };
}

describe("causalConv1d", () => {
  it.each([0, 1, 2, 3, 4, 5])("agrees with golden %i", (index) => {
    const { meta, tensors } = golden(`causal_conv1d_${index}`);
    const { x, weight, bias, out, dout, dx, dweight, dbias } = tensors;
    const tokens = [0, 2, 1];
    const inputs = { x: transpose(x, tokens), weight, ...(bias && { bias }) };
    const routine = routineFor(inputs, meta.activation === "silu" ? "silu" : "none");
    for (const gap of [0, 3]) {
      expectSamples(runForward(routine, inputs, { gap }), { y: transpose(out, tokens) }, 2e-7);
      const expected = { dx: transpose(dx, tokens), dweight, ...(dbias && { dbias }) };
      expectSamples(runBackward(routine, inputs, { dy: transpose(dout, tokens) }, { gap }), expected, 2e-7);
    }
  });

  it.each([1, 2, 3, 5])("has gradients that match central differences at width %i", (width) => {
    const next = randomNumbers(width);
    const inputs = {
      x: sample(next, [2, 6, 3]),
      weight: sample(next, [3, width]),
      bias: sample(next, [3]),
      initialState: sample(next, [2, 3, width]),
    };
    const routine = routineFor(inputs, "none", { seqIdx: placeInts([2, 6], [0, 0, 1, 1, 1, 1, 4, 5, 6, 6, 6, 6]) });
    expectGradients(routine, inputs, upstreamOf(routine, next));
  });

  it("keeps the last W inputs of the last sequence, oldest first", () => {
    const inputs = {
      x: { shape: [1, 3, 1], values: Float64Array.of(5, 6, 7) },
      weight: { shape: [1, 4], values: Float64Array.of(1000, 100, 10, 1) },
      initialState: { shape: [1, 1, 4], values: Float64Array.of(1, 2, 3, 4) },
    };
    const run = (fixed: Routine["fixed"]): Samples => runForward(routineFor(inputs, "none", fixed), inputs);

    const plain = run({});
    expect([...plain.y.values]).toEqual([2345, 3456, 4567]);
    expect([...plain.finalState.values]).toEqual([4, 5, 6, 7]);

    const packed = run({ seqIdx: placeInts([1, 3], [0, 0, 1]) });
    expect([...packed.y.values]).toEqual([2345, 3456, 7]);
    expect([...packed.finalState.values]).toEqual([0, 0, 0, 7]);

    const padded = run({ lengths: placeInts([1], [2]) });
    expect([...padded.y.values]).toEqual([2345, 3456, 0]);
    expect([...padded.finalState.values]).toEqual([3, 4, 5, 6]);

    expect([...run({ lengths: placeInts([1], [0]) }).finalState.values]).toEqual([1, 2, 3, 4]);
  });

  it("writes no gradient that is not asked for", () => {
    const x = place([1, 2, 1], Float64Array.of(1, 2));
    const weight = place([1, 2], Float64Array.of(3, 4));
    const dy = place([1, 2, 1], Float64Array.of(1, 1));
    expect(() => routines.causalConv1dBackward({ x, weight, dy }, {}, { activation: "silu" })).not.toThrow();
  });
});
