// Layer: conformance. A token through a layer, twice, recorded and replayed: the bits of the same calls made one by one, outputs and states.
// Backends may run what is recorded in another way, such as several kernels in one; tokens of many rows in bf16 also with another rounding of
// what lies between two products, where they say so. Where a device cannot record, the calls are made twice.
// Knows the ops of a layer and recordings. Knows no model and no device by name.

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
  ssdDeferred,
  ssdScan,
  type Tensor,
} from "@diffmamba/tensor";
import { takeAll } from "../cases/case.js";
import { check, compareBits, compareValues, decode, tolerances } from "../compare.js";
import type { Property } from "./property.js";

/** Width, heads and their width, states of a head, inputs of the convolution: as many as vectors and warps take whole. */
const [D, HEADS, P, N, W] = [96, 2, 64, 64, 4];
const INNER = HEADS * P;
const RANK = 16;
const TOKENS = 2;
/** Up to so many rows nothing is rounded in another way. */
const FEW_ROWS = 8;

interface Layer {
  /** All that a token reads and changes. */
  readonly kept: Readonly<Record<"x" | "y" | "convState" | "state", Tensor>>;
  /** Enqueues a token and leaves its output in `y`. */
  step(): void;
}

type Noise = (shape: readonly number[], scale: number, dtype?: DType, middle?: number) => Tensor;

/** Numbers without a pattern, up to `scale` from the middle; all tensors are added to `made`. */
function noiseOn(device: Device, made: Tensor[]): Noise {
  return (shape, scale, dtype = "f32", middle = 0) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, (_, i) => middle + scale * Math.sin(i * 12.9898 + size) ** 3);
    made.push(noGrad(() => scope(() => device.from(values, shape).cast(dtype))));
    return made[made.length - 1];
  };
}

/** A layer of either kind: a norm, a projection, a convolution, a scan, a projection. */
interface Kind {
  readonly name: string;
  make(noise: Noise, rows: number, dtype: DType, stateType: DType): Layer;
}

/** What both kinds of layers begin and end with. */
function around(noise: Noise, rows: number, dtype: DType, convolved: number, packed: number) {
  return {
    inWeight: noise([packed, D], 0.1, dtype),
    outWeight: noise([D, INNER], 0.1, dtype),
    filter: noise([convolved, W], 0.5, dtype),
    normWeight: noise([D], 1, dtype),
    bias: noise([convolved], 0.5, dtype),
    x: noise([rows, 1, D], 1),
    y: noise([rows, 1, D], 1, dtype),
    convState: noise([rows, convolved, W], 1),
  };
}

/** Two layers of one kind and the same weights, after one another; what comes out replaces what went in. */
function twice(
  layer: (x: Tensor, y: Tensor) => { readonly x: Tensor; readonly y: Tensor },
  x: Tensor,
  y: Tensor,
): void {
  const first = layer(x, y);
  const second = layer(first.x, first.y);
  x.assign(second.x);
  y.assign(second.y);
}

/** `places`: for tokens beside the state, where the backend has a kernel that keeps some; else, and with 0, none are kept. */
const mamba2 = (name: string, places: number): Kind => ({
  name,
  make(noise, rows, dtype, stateType) {
    const convolved = INNER + 2 * N;
    const all = around(noise, rows, dtype, convolved, INNER + convolved + HEADS);
    const { x, y, convState, filter, bias, normWeight, inWeight, outWeight } = all;
    const state = noise([rows, HEADS, P, N], 1, stateType);
    const [gate, skip] = [noise([INNER], 1, dtype), noise([HEADS], 1)];
    const A = noise([HEADS], 0.1, "f32", -1);
    const one = noise([], 0, "i32", 1);
    const beside = places > 0 &&
      x.device.backend.kernels.ssdDeferred !== undefined && {
        x: noise([rows, places, HEADS, P], 1, dtype),
        B: noise([rows, places, 1, N], 1, dtype),
        steps: noise([rows, places, HEADS], 1),
        count: noise([], 0, "i32"),
      };
    const layer = (x: Tensor, y: Tensor) => {
      const { sum, normed } = addRmsNorm(x, y, normWeight, { eps: 1e-5 });
      const [z, xBC, dt] = linear(normed, inWeight).split([INNER, convolved, HEADS]);
      const conv = causalConv1d(xBC, filter, { bias, initialState: convState, replacesState: true });
      const [xs, B, C] = conv.y.split([INNER, N, N]);
      const heads = { x: xs.reshape(rows, 1, HEADS, P), B: B.reshape(rows, 1, 1, N), C: C.reshape(rows, 1, 1, N) };
      const inputs = { ...heads, dt, A, D: skip, dtBias: skip, initialState: state };
      const scanned = beside ? ssdDeferred(inputs, beside) : ssdScan(inputs, { replacesState: true }).y;
      if (beside) beside.count.addInPlace(one);
      const gated = rmsNorm(scanned.reshape(rows, 1, INNER), gate, { gate: z, eps: 1e-5 });
      return { x: sum, y: linear(gated, outWeight) };
    };
    return { kept: { x, y, convState, state }, step: () => twice(layer, x, y) };
  },
});

const mamba: Kind = {
  name: "Mamba",
  make(noise, rows, dtype, stateType) {
    const all = around(noise, rows, dtype, INNER, 2 * INNER);
    const { x, y, convState, filter, bias, normWeight, inWeight, outWeight } = all;
    const state = noise([rows, INNER, 16], 1, stateType);
    const stepWeight = noise([INNER, RANK], 0.1, dtype);
    const sharedWeight = noise([RANK + 32, INNER], 0.1, dtype);
    const [skip, A] = [noise([INNER], 1), noise([INNER, 16], 0.1, "f32", -1)];
    const layer = (x: Tensor, y: Tensor) => {
      const { sum, normed } = addRmsNorm(x, y, normWeight, { eps: 1e-5 });
      const [xs, z] = linear(normed, inWeight).split([INNER, INNER]);
      const conv = causalConv1d(xs, filter, { bias, initialState: convState, replacesState: true });
      const [dt, B, C] = linear(conv.y, sharedWeight).split([RANK, 16, 16]);
      const delta = linear(dt, stepWeight);
      const scan = selectiveScan(
        { u: conv.y, delta, A, B, C, D: skip, z, deltaBias: skip, initialState: state },
        { replacesState: true },
      );
      return { x: sum, y: linear(scan.y, outWeight) };
    };
    return { kept: { x, y, convState, state }, step: () => twice(layer, x, y) };
  },
};

/** What a layer keeps after some tokens, by calls or from a recording. */
async function after(device: Device, make: (noise: Noise) => Layer, recorded: boolean) {
  const tensors: Tensor[] = [];
  const { kept, step } = make(noiseOn(device, tensors));
  const calls = () => noGrad(() => scope(step));
  const recording = recorded && device.canRecord ? device.record(calls) : undefined;
  for (let i = 0; i < TOKENS; i++) {
    if (recording) recording.replay();
    else calls();
  }
  const values = await takeAll(kept);
  recording?.dispose();
  for (const tensor of tensors) tensor.dispose();
  return values;
}

function recordedToken(kind: Kind, rows: number, stateType: DType): Property {
  const name = `a token of ${rows} rows in a layer of ${kind.name}, states in ${stateType}: recorded = by calls`;
  const run: Property["run"] = async (device, dtype) => {
    const make = (noise: Noise) => kind.make(noise, rows, dtype, stateType);
    const byCalls = await after(device, make, false);
    const numbers = Object.values(byCalls).flatMap((value) => Array.from(decode(value).data));
    const replayed = await after(device, make, true);
    return [
      check("tokens", numbers.every(Number.isFinite), "some numbers are not finite"),
      ...Object.entries(byCalls).map(([key, value]) =>
        dtype === "bf16" && rows > FEW_ROWS && device.backend.roundsRecordedTokens
          ? compareValues(key, decode(replayed[key]), decode(value), tolerances.equal[dtype].forward)
          : compareBits(key, replayed[key], value),
      ),
    ];
  };
  return { name, dtypes: ["f32", "bf16", "f16"], run };
}

const layers: readonly (readonly [Kind, number, DType])[] = [
  ...[mamba2("Mamba-2", 0), mamba].flatMap((kind) => [
    [kind, 1, "bf16"] as const,
    [kind, 5, "f32"] as const,
    [kind, 40, "bf16"] as const,
  ]),
  [mamba2("Mamba-2 that takes two tokens at a time into its state", TOKENS), 40, "bf16"],
];

export const recordingProperties: readonly Property[] = layers.map(([kind, rows, stateType]) =>
  recordedToken(kind, rows, stateType),
);
