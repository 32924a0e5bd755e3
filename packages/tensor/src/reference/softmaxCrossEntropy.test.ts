// Layer: tests of the reference backend. Cross-entropy: values, gradients, ignored and impossible targets.

import { describe, expect, it } from "vitest";
import { ValueError } from "../errors.js";
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
  upstreamOf,
} from "./checks.testing.js";
import { routines } from "./routines.js";

function routineFor({ logits }: Samples, targets: readonly number[]): Routine {
  const [rows] = logits.shape;
  return {
    forward: routines.softmaxCrossEntropy,
    backward: routines.softmaxCrossEntropyBackward,
    options: { ignoreIndex: -100 },
    outputs: { losses: [rows] },
    saved: { logSumExp: [rows] },
    rows: { logits: 1 },
    fixed: { targets: placeInts([rows], targets) },
  };
}

describe("softmaxCrossEntropy", () => {
  it("is the negative log probability of the target, in nats", () => {
    const logits = { shape: [2, 3], values: Float64Array.of(0, Math.log(2), Math.log(5), 1000, 1000, 1000) };
    const expected = {
      losses: { shape: [2], values: Float64Array.of(Math.log(4), Math.log(3)) },
      logSumExp: { shape: [2], values: Float64Array.of(Math.log(8), 1000 + Math.log(3)) },
    };
    expectSamples(runForward(routineFor({ logits }, [1, 0]), { logits }), expected, 1e-15);
  });

  it("has gradients that match central differences, and none in ignored rows", () => {
    const next = randomNumbers(1);
    const inputs = { logits: sample(next, [4, 5], -3, 3) };
    const routine = routineFor(inputs, [0, 4, -100, 2]);
    const upstream = upstreamOf(routine, next);
    for (const gap of [0, 3]) expectGradients(routine, inputs, upstream, { gap });
    expect(runForward(routine, inputs).losses.values[2]).toBe(0);
    expect([...runBackward(routine, inputs, upstream).dlogits.values.subarray(10, 15)]).toEqual([0, 0, 0, 0, 0]);
    expect([...runBackward(routine, inputs, {}).dlogits.values]).toEqual(new Array(20).fill(0));
  });

  it("computes in f32 to its precision", () => {
    const next = randomNumbers(2);
    const inputs = { logits: sample(next, [4, 50], -3, 3) };
    const routine = routineFor(inputs, [0, 4, -100, 49]);
    const upstream = upstreamOf(routine, next);
    expectSamples(runForward(routine, inputs, { dtype: "f32" }), runForward(routine, inputs), 1e-6);
    const d32 = runBackward(routine, inputs, upstream, { dtype: "f32" });
    expectSamples(d32, runBackward(routine, inputs, upstream), 1e-5);
  });

  it.each([3, -1, 2 ** 31 - 1])("refuses the target %i by name, row and range", (target) => {
    const logits = place([2, 3], new Float64Array(6));
    const targets = placeInts([2], [1, target]);
    const [losses, logSumExp] = [place([2]), place([2])];
    const forward = () =>
      routines.softmaxCrossEntropy({ logits, targets }, { losses, logSumExp }, { ignoreIndex: -100 });
    expect(forward).toThrow(ValueError);
    expect(forward).toThrow(`softmaxCrossEntropy: target ${target} of row 1 lies outside [0, 3)`);
    const inputs = { logits, targets, logSumExp: place([2], new Float64Array(2)) };
    const backward = () => routines.softmaxCrossEntropyBackward(inputs, {}, { ignoreIndex: -100 });
    expect(backward).toThrow(ValueError);
  });
});
