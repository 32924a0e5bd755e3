// Layer: tests of the reference backend. RMSNorm and LayerNorm against goldens, plain values and central differences.

import { describe, expect, it } from "vitest";
import {
  expectGradients,
  expectSamples,
  type Routine,
  randomNumbers,
  runBackward,
  runForward,
  type Samples,
  sample,
  upstreamOf,
} from "./checks.testing.js";
import { golden } from "./golden.testing.js";
import { routines } from "./routines.js";

function rms({ x }: Samples, groupSize: number, normBeforeGate: boolean): Routine {
  const [rows, width] = x.shape;
  return {
    forward: routines.rmsNorm,
    backward: routines.rmsNormBackward,
    options: { eps: 1e-5, groupSize, normBeforeGate },
    outputs: { y: x.shape },
    saved: { rstd: [rows, width / groupSize] },
    rows: { x: 1, z: 1, y: 1 },
  };
}

function layer({ x }: Samples): Routine {
  const [rows] = x.shape;
  return {
    forward: routines.layerNorm,
    backward: routines.layerNormBackward,
    options: { eps: 1e-5 },
    outputs: { y: x.shape },
    saved: { mean: [rows], rstd: [rows] },
    rows: { x: 1, y: 1 },
  };
}

describe("rmsNorm", () => {
  it.each([0, 1, 2, 3, 4])("agrees with golden %i", (index) => {
    const { meta, tensors } = golden(`rms_norm_${index}`);
    const { x, z, weight, out, dout, dx, dz, dweight } = tensors;
    expect(meta.eps).toBe(1e-5);
    expect(z !== undefined).toBe(meta.gated);
    const inputs = { x, weight, ...(z && { z }) };
    const routine = rms(inputs, (meta.group_size as number | null) ?? x.shape[1], meta.norm_before_gate === true);
    expectSamples(runForward(routine, inputs, { gap: 3 }), { y: out }, 2e-7);
    const expected = { dx, dweight, ...(dz && { dz }) };
    expectSamples(runBackward(routine, inputs, { dy: dout }, { gap: 3 }), expected, 2e-7);
  });

  it.each([
    [6, true],
    [6, false],
    [2, true],
    [2, false],
  ])("has gradients that match central differences in groups of %i, norm before gate %s", (groupSize, before) => {
    const next = randomNumbers(groupSize);
    const inputs = { x: sample(next, [3, 6]), weight: sample(next, [6]), z: sample(next, [3, 6], -2, 2) };
    const { z: _, ...plain } = inputs;
    for (const given of [inputs, plain]) {
      const routine = rms(given, groupSize, before);
      for (const gap of [0, 2]) expectGradients(routine, given, upstreamOf(routine, next), { gap });
    }
  });

  it("saves 1 / sqrt(mean square + eps) of each group", () => {
    const inputs = {
      x: { shape: [1, 4], values: Float64Array.of(3, 4, 0, 0) },
      weight: { shape: [4], values: Float64Array.of(1, 1, 1, 1) },
    };
    const { rstd } = runForward(rms(inputs, 2, false), inputs);
    expectSamples(
      { rstd },
      { rstd: { shape: [1, 2], values: Float64Array.of(12.50001 ** -0.5, 1e-5 ** -0.5) } },
      1e-14,
    );
  });
});

describe("layerNorm", () => {
  it("centres, scales and shifts", () => {
    const inputs = {
      x: { shape: [1, 4], values: Float64Array.of(1, 2, 3, 6) },
      weight: { shape: [4], values: Float64Array.of(1, 2, 1, 1) },
      bias: { shape: [4], values: Float64Array.of(0, 0, 1, 0) },
    };
    const r = (3.5 + 1e-5) ** -0.5;
    const expected = {
      y: { shape: [1, 4], values: Float64Array.of(-2 * r, -2 * r, 1, 3 * r) },
      mean: { shape: [1], values: Float64Array.of(3) },
      rstd: { shape: [1], values: Float64Array.of(r) },
    };
    expectSamples(runForward(layer(inputs), inputs), expected, 1e-14);
  });

  it("has gradients that match central differences", () => {
    const next = randomNumbers(4);
    const plain = { x: sample(next, [3, 5]), weight: sample(next, [5]) };
    for (const inputs of [plain, { ...plain, bias: sample(next, [5]) }]) {
      const routine = layer(inputs);
      for (const gap of [0, 2]) expectGradients(routine, inputs, upstreamOf(routine, next), { gap });
    }
  });
});

describe.each(["rmsNorm", "layerNorm"])("%s", (name) => {
  const next = randomNumbers(9);
  const inputs = { x: sample(next, [4, 8]), weight: sample(next, [8]) };
  const routine = name === "rmsNorm" ? rms(inputs, 4, false) : layer(inputs);

  it("takes an absent gradient of y as zero", () => {
    for (const { values } of Object.values(runBackward(routine, inputs, {}))) {
      expect([...values].every((value) => value === 0)).toBe(true);
    }
  });

  it("computes in f32 to its precision", () => {
    const upstream = upstreamOf(routine, next);
    expectSamples(runForward(routine, inputs, { dtype: "f32" }), runForward(routine, inputs), 1e-6);
    const d32 = runBackward(routine, inputs, upstream, { dtype: "f32" });
    expectSamples(d32, runBackward(routine, inputs, upstream), 1e-5);
  });
});
