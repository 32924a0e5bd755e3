// Layer: tests of the reference backend. The Mamba-2 scan against goldens, the plain recurrence and central differences.

import { describe, expect, it } from "vitest";
import { sizeOf } from "../layout.js";
import {
  expectGradients,
  expectSamples,
  placeInts,
  type Routine,
  randomNumbers,
  runBackward,
  runForward,
  type Sample,
  type Samples,
  sample,
  upstreamOf,
} from "./checks.testing.js";
import { golden } from "./golden.testing.js";
import { routines } from "./routines.js";

interface Options {
  readonly chunkSize: number;
  readonly dtSoftplus?: boolean;
  readonly dtLimit?: readonly [number, number];
  readonly fixed?: Routine["fixed"];
}

function routineFor({ x, B }: Samples, options: Options): Routine {
  const { chunkSize, dtSoftplus = true, dtLimit = [0, Number.POSITIVE_INFINITY], fixed = {} } = options;
  const [batch, length, heads, headDim] = x.shape;
  const state = [heads, headDim, B.shape[3]];
  return {
    forward: routines.ssdScan,
    backward: routines.ssdScanBackward,
    options: { chunkSize, dtSoftplus, dtLimit },
    outputs: { y: x.shape, finalState: [batch, ...state] },
    saved: { states: [batch, Math.ceil(length / chunkSize), ...state] },
    rows: { x: 2, dt: 1, B: 2, C: 2, z: 2, y: 2 },
    fixed,
  };
}

function randomInputs(next: () => number, [batch, length, heads, headDim, groups, dState]: readonly number[]): Samples {
  return {
    x: sample(next, [batch, length, heads, headDim]),
    dt: sample(next, [batch, length, heads], -2, 1),
    A: sample(next, [heads], -2, -0.2),
    B: sample(next, [batch, length, groups, dState]),
    C: sample(next, [batch, length, groups, dState]),
    D: sample(next, [heads]),
    z: sample(next, [batch, length, heads, headDim], -2, 2),
    dtBias: sample(next, [heads], -1, 1),
    initialState: sample(next, [batch, heads, headDim, dState]),
  };
}

/** S_t = e^{dt A} S_{t-1} + dt x B^T, y_t = (S_t C_t + D x_t) silu(z_t), one token at a time. */
function recurrence(inputs: Samples, seqIdx: readonly number[], lengths: readonly number[], limit: readonly number[]) {
  const { x, dt, A, B, C, D, z, dtBias, initialState } = inputs;
  const [batch, length, heads, headDim] = x.shape;
  const [, , groups, dState] = B.shape;
  const y = new Float64Array(x.values.length);
  const finalState = initialState.values.slice();
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor((h * groups) / heads);
      for (let p = 0; p < headDim; p++) {
        for (let t = 0; t < lengths[b]; t++) {
          const row = b * length + t;
          const at = (row * heads + h) * headDim + p;
          const raw = dt.values[row * heads + h] + dtBias.values[h];
          const step = Math.min(Math.max(Math.log(1 + Math.exp(raw)), limit[0]), limit[1]);
          let sum = D.values[h] * x.values[at];
          for (let n = 0; n < dState; n++) {
            const s = ((b * heads + h) * headDim + p) * dState + n;
            const bc = (row * groups + g) * dState + n;
            if (t > 0 && seqIdx[row] !== seqIdx[row - 1]) finalState[s] = 0;
            finalState[s] = Math.exp(step * A.values[h]) * finalState[s] + step * x.values[at] * B.values[bc];
            sum += C.values[bc] * finalState[s];
          }
          y[at] = (sum * z.values[at]) / (1 + Math.exp(-z.values[at]));
        }
      }
    }
  }
  return { y: { shape: x.shape, values: y }, finalState: { shape: initialState.shape, values: finalState } };
}

const names: Readonly<Record<string, string>> = { dt_bias: "dtBias", ddt_bias: "ddtBias" };

describe("ssdScan", () => {
  it.each([0, 1, 2, 3, 4, 5])("agrees with golden %i at every chunk size", (index) => {
    const { meta, tensors } = golden(`ssd_${index}`);
    const { out, dout, final_state, ...rest } = tensors;
    const inputs: Record<string, Sample> = {};
    const gradients: Record<string, Sample> = {};
    for (const [name, tensor] of Object.entries(rest)) {
      const isGradient = name.startsWith("d") && name.slice(1) in rest;
      (isGradient ? gradients : inputs)[names[name] ?? name] = tensor;
    }
    expect(Object.keys(gradients).sort()).toEqual(
      Object.keys(inputs)
        .map((name) => `d${name}`)
        .sort(),
    );
    const dtLimit = (meta.dt_limit ?? undefined) as [number, number] | undefined;
    for (const chunkSize of [1, 7, 16, 64, 256]) {
      const routine = routineFor(inputs, { chunkSize, dtSoftplus: meta.dt_softplus === true, dtLimit });
      expectSamples(runForward(routine, inputs, { gap: 2 }), { y: out, finalState: final_state }, 2e-7);
      expectSamples(runBackward(routine, inputs, { dy: dout }, { gap: 2 }), gradients, 2e-7);
    }
  });

  it.each([1, 2, 5, 16, 100])("equals the recurrence, token by token, in chunks of %i", (chunkSize) => {
    const next = randomNumbers(chunkSize);
    const inputs = randomInputs(next, [3, 17, 6, 3, 2, 5]);
    const seqIdx = Array.from({ length: 51 }, (_, i) => (i < 17 ? 0 : Math.floor(i / 7)));
    const lengths = [17, 17, 12];
    const limit = [0.1, 1.5] as const;
    const fixed = { seqIdx: placeInts([3, 17], seqIdx), lengths: placeInts([3], lengths) };
    const routine = routineFor(inputs, { chunkSize, dtLimit: limit, fixed });
    expectSamples(runForward(routine, inputs), recurrence(inputs, seqIdx, lengths, limit), 1e-13);
  });

  it.each([1, 3, 8])("has gradients that match central differences with D per head, in chunks of %i", (chunkSize) => {
    const next = randomNumbers(5);
    const inputs = randomInputs(next, [1, 7, 3, 2, 3, 2]);
    const routine = routineFor(inputs, { chunkSize });
    expectGradients(routine, inputs, upstreamOf(routine, next));
  });

  it.each([true, false])("clamps dt to its limits and stops its gradient there (softplus: %s)", (dtSoftplus) => {
    const next = randomNumbers(11);
    const inputs = randomInputs(next, [1, 8, 2, 2, 1, 2]);
    const routine = routineFor(inputs, { chunkSize: 3, dtSoftplus, dtLimit: [0.2, 0.8] });
    const upstream = upstreamOf(routine, next);
    expectGradients(routine, inputs, upstream);
    const { ddt } = runBackward(routine, inputs, upstream);
    const clamped = [...inputs.dt.values].map((dt, i) => {
      const raw = dt + inputs.dtBias.values[i % 2];
      const open = dtSoftplus ? Math.log(1 + Math.exp(raw)) : raw;
      return open < 0.2 || open > 0.8;
    });
    expect([...ddt.values].map((value) => value === 0)).toEqual(clamped);
    expect(new Set(clamped).size).toBe(2);
  });

  it("stays finite where a decay vanishes", () => {
    const next = randomNumbers(13);
    const inputs = { ...randomInputs(next, [1, 40, 1, 2, 1, 2]), A: { shape: [1], values: Float64Array.of(-500) } };
    const routine = routineFor(inputs, { chunkSize: 40 });
    const upstream = upstreamOf(routine, next);
    for (const { values, shape } of [
      ...Object.values(runForward(routine, inputs)),
      ...Object.values(runBackward(routine, inputs, upstream)),
    ]) {
      expect(values.filter(Number.isFinite).length).toBe(sizeOf(shape));
    }
  });
});
