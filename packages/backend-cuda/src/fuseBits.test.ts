// A token on a GPU: recorded, several kernels in one, it gives the bits of its kernels one by one, outputs and states, for few rows
// and for some. Skipped by name where there is no GPU.

import {
  addRmsNorm,
  causalConv1d,
  type Device,
  type DType,
  linear,
  noGrad,
  rmsNorm,
  scope,
  selectiveScan,
  ssdScan,
  type Tensor,
} from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { cuda, cudaAvailability } from "./index.js";

const availability = cudaAvailability();
const [D, HEADS, P, N, W] = [192, 6, 64, 128, 4];
const INNER = HEADS * P;

interface Layer {
  readonly x: Tensor;
  readonly y: Tensor;
  readonly convState: Tensor;
  readonly state: Tensor;
  /** Enqueues a token and leaves its output in `y`. */
  step(): void;
}

/** Numbers without a pattern, from -scale to scale. */
function noise(device: Device, shape: readonly number[], scale: number, dtype: DType = "f32"): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const values = Float32Array.from({ length: size }, (_, i) => scale * Math.sin(i * 12.9898 + size) ** 3);
  return noGrad(() => scope(() => device.from(values, shape).cast(dtype)));
}

/** What both kinds of layers begin and end with. */
function around(
  device: Device,
  rows: number,
  dtype: DType,
  convolved: number,
  packed: number,
  stateShape: readonly number[],
  stateType: DType,
) {
  const inWeight = noise(device, [packed, D], 0.1, dtype);
  const outWeight = noise(device, [D, INNER], 0.1, dtype);
  const filter = noise(device, [convolved, W], 0.5, dtype);
  return {
    ...{ inWeight, outWeight, filter },
    normWeight: noise(device, [D], 1, dtype),
    bias: noise(device, [convolved], 0.5, dtype),
    x: noise(device, [rows, 1, D], 1),
    y: noise(device, [rows, 1, D], 1, dtype),
    convState: noise(device, [rows, convolved, W], 1),
    state: noise(device, [rows, ...stateShape], 1, stateType),
    A: noise(device, stateShape.length === 3 ? [HEADS] : [INNER, 16], 0.1).sub(1),
  };
}

function mamba2(device: Device, rows: number, dtype: DType, stateType: DType): Layer {
  const convolved = INNER + 2 * N;
  const all = around(device, rows, dtype, convolved, INNER + convolved + HEADS, [HEADS, P, N], stateType);
  const { x, y, convState, state, filter, bias, A, normWeight, inWeight, outWeight } = all;
  const gate = noise(device, [INNER], 1, dtype);
  const skip = noise(device, [HEADS], 1);
  const step = () => {
    const { sum, normed } = addRmsNorm(x, y, normWeight, { eps: 1e-5 });
    const [z, xBC, dt] = linear(normed, inWeight).split([INNER, convolved, HEADS]);
    const conv = causalConv1d(xBC, filter, { bias, initialState: convState, replacesState: true });
    const [xs, B, C] = conv.y.split([INNER, N, N]);
    const scan = ssdScan(
      {
        x: xs.reshape(rows, 1, HEADS, P),
        dt,
        A,
        B: B.reshape(rows, 1, 1, N),
        C: C.reshape(rows, 1, 1, N),
        D: skip,
        dtBias: skip,
        initialState: state,
      },
      { replacesState: true },
    );
    const gated = rmsNorm(scan.y.reshape(rows, 1, INNER), gate, { gate: z, eps: 1e-5 });
    y.assign(linear(gated, outWeight));
    x.assign(sum);
  };
  return { x, y, convState, state, step };
}

function mamba(device: Device, rows: number, dtype: DType, stateType: DType): Layer {
  const all = around(device, rows, dtype, INNER, 2 * INNER, [INNER, 16], stateType);
  const { x, y, convState, state, filter, bias, A, normWeight, inWeight, outWeight } = all;
  const rank = 16;
  const stepWeight = noise(device, [INNER, rank], 0.1, dtype);
  const sharedWeight = noise(device, [rank + 32, INNER], 0.1, dtype);
  const skip = noise(device, [INNER], 1);
  const step = () => {
    const { sum, normed } = addRmsNorm(x, y, normWeight, { eps: 1e-5 });
    const [xs, z] = linear(normed, inWeight).split([INNER, INNER]);
    const conv = causalConv1d(xs, filter, { bias, initialState: convState, replacesState: true });
    const [dt, B, C] = linear(conv.y, sharedWeight).split([rank, 16, 16]);
    const delta = linear(dt, stepWeight);
    const scan = selectiveScan(
      { u: conv.y, delta, A, B, C, D: skip, z, deltaBias: skip, initialState: state },
      { replacesState: true },
    );
    y.assign(linear(scan.y, outWeight));
    x.assign(sum);
  };
  return { x, y, convState, state, step };
}

/** Outputs and states after three tokens. */
async function after(layer: Layer, run: () => void): Promise<Float32Array[]> {
  for (let i = 0; i < 3; i++) run();
  const tensors = [layer.y, layer.x, layer.convState, layer.state];
  return Promise.all(tensors.map(async (tensor) => Float32Array.from(await tensor.data())));
}

describe.skipIf(!availability.available)("a token's launches together", () => {
  beforeAll(() => void vi.stubEnv("DIFFMAMBA_CUDA_FUSE", ""));
  afterAll(() => void vi.unstubAllEnvs());
  const kinds = { mamba2, mamba };
  for (const name of ["mamba2", "mamba"] as const) {
    for (const [dtype, rows, stateType] of [
      ["bf16", 1, "f32"],
      ["bf16", 3, "f32"],
      ["bf16", 2, "bf16"],
      ["f16", 8, "f32"],
      ["f32", 2, "f32"],
      ["f32", 5, "f16"],
      ["bf16", 9, "f32"],
      ["bf16", 64, "bf16"],
      ["f16", 33, "f32"],
    ] as const) {
      it(`have their bits one by one in a ${name} layer, in ${dtype} with states in ${stateType} for ${rows} rows, and the same ones twice`, async () => {
        const results: Float32Array[][] = [];
        for (const recorded of [false, true, true]) {
          const device = await cuda();
          const layer = kinds[name](device, rows, dtype, stateType);
          const step = () => noGrad(() => scope(() => layer.step()));
          const recording = recorded ? device.record(step) : undefined;
          results.push(await after(layer, recording ? () => recording.replay() : step));
          await device.dispose();
        }
        expect(results[1]).toEqual(results[0]);
        expect(results[2]).toEqual(results[0]);
        expect(results[0].every((values) => values.every(Number.isFinite))).toBe(true);
      });
    }
  }
});
