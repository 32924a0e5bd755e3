// Layer: tests of the reference backend. The selective scan against goldens and central differences.

import { describe, expect, it } from "vitest";
import {
  expectGradients,
  expectSamples,
  type Routine,
  randomNumbers,
  runBackward,
  runForward,
  type Sample,
  type Samples,
  sample,
  transpose,
  upstreamOf,
} from "./checks.testing.js";
import { golden } from "./golden.testing.js";
import { routines } from "./routines.js";

function routineFor({ u, A }: Samples, deltaSoftplus: boolean, chunkSize: number): Routine {
  const [batch, length] = u.shape;
  return {
    forward: routines.selectiveScan,
    backward: routines.selectiveScanBackward,
    options: { deltaSoftplus, chunkSize },
    outputs: { y: u.shape, finalState: [batch, ...A.shape] },
    saved: { states: [batch, Math.ceil(length / chunkSize), ...A.shape] },
    rows: { u: 1, delta: 1, B: 2, C: 2, z: 1, y: 1 },
  };
}

/** (B, D, L) as (B, L, D); (B, N, L) of one group or (B, G, N, L) as (B, L, G, N). */
function tokensFirst(name: string, tensor: Sample): Sample {
  if (!/^d?[BC]$/.test(name)) return transpose(tensor, [0, 2, 1]);
  const [batch, ...rest] = tensor.shape;
  const grouped = rest.length === 3 ? tensor : { shape: [batch, 1, ...rest], values: tensor.values };
  return transpose(grouped, [0, 3, 1, 2]);
}

const names: Readonly<Record<string, string>> = { delta_bias: "deltaBias", ddelta_bias: "ddeltaBias" };
const tokens = ["u", "delta", "B", "C", "z"];

describe("selectiveScan", () => {
  it.each([0, 1, 2, 3, 4, 5, 6, 7])("agrees with golden %i", (index) => {
    const { meta, tensors } = golden(`selective_scan_${index}`);
    const inputs: Record<string, Sample> = {};
    const gradients: Record<string, Sample> = {};
    for (const [name, tensor] of Object.entries(tensors)) {
      if (["out", "dout", "last_state"].includes(name)) continue;
      const isGradient = name.startsWith("d") && name.slice(1) in tensors;
      const plain = isGradient ? name.slice(1) : name;
      (isGradient ? gradients : inputs)[names[name] ?? name] = tokens.includes(plain)
        ? tokensFirst(name, tensor)
        : tensor;
    }
    expect(Object.keys(gradients).sort()).toEqual(
      Object.keys(inputs)
        .map((name) => `d${name}`)
        .sort(),
    );
    for (const chunkSize of [7, 64, 2048]) {
      const routine = routineFor(inputs, meta.delta_softplus === true, chunkSize);
      const expected = { y: tokensFirst("out", tensors.out), finalState: tensors.last_state };
      expectSamples(runForward(routine, inputs, { gap: 2 }), expected, 2e-7);
      const dy = tokensFirst("dout", tensors.dout);
      expectSamples(runBackward(routine, inputs, { dy }, { gap: 2 }), gradients, 2e-7);
    }
  });

  it("has gradients that match central differences without softplus", () => {
    const next = randomNumbers(3);
    const inputs = {
      u: sample(next, [1, 5, 3]),
      delta: sample(next, [1, 5, 3], 0.1, 1),
      A: sample(next, [3, 2], -2, -0.2),
      B: sample(next, [1, 5, 3, 2]),
      C: sample(next, [1, 5, 3, 2]),
    };
    const routine = routineFor(inputs, false, 2);
    expectGradients(routine, inputs, upstreamOf(routine, next));
  });

  it("stores the state that enters each chunk", () => {
    const one = (values: number[], shape: number[]): Sample => ({ shape, values: Float64Array.from(values) });
    const inputs = {
      u: one([1, 1, 1], [1, 3, 1]),
      delta: one([1, 1, 1], [1, 3, 1]),
      A: one([-Math.LN2], [1, 1]),
      B: one([1, 1, 1], [1, 3, 1, 1]),
      C: one([1, 1, 1], [1, 3, 1, 1]),
      initialState: one([4], [1, 1, 1]),
    };
    const { y, states, finalState } = runForward(routineFor(inputs, false, 2), inputs);
    expectSamples(
      { y, states, finalState },
      {
        y: one([3, 2.5, 2.25], [1, 3, 1]),
        states: one([4, 2.5], [1, 2, 1, 1]),
        finalState: one([2.25], [1, 1, 1]),
      },
      1e-15,
    );
  });
});
