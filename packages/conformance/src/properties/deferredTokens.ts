// Layer: conformance. Tokens of the Mamba-2 scan that are kept beside the state: y of each is that of a scan over all of them, and the
// state, whenever it is whole, is that after the scan, rounded once.
// Knows the scan's calls. Knows no device by name.

import {
  concat,
  type Device,
  type DType,
  type HostTensor,
  keptTokens,
  noGrad,
  type SsdCallOptions,
  type SsdTensors,
  scope,
  ssdDeferred,
  ssdScan,
  ssdSettle,
  type Tensor,
} from "@diffmamba/tensor";
import { placeInputs, type Tensors, takeAll, worldOf } from "../cases/case.js";
import { drawInputs, type InputSpec, statistic, uniform } from "../cases/inputs.js";
import { type Check, compareBits, compareValues, decode, floatTypes, isFloatType, tolerances } from "../compare.js";
import { compareRounded, narrowTypes } from "./narrowStates.js";
import type { Property } from "./property.js";

interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly dState: number;
  /** Places for tokens. */
  readonly kept: number;
  /** D is (H, P), not (H,). */
  readonly channelD?: boolean;
  /** With a gate, a bias of dt and limits; else with none of them, and without D. */
  readonly bare?: boolean;
}

const limits: readonly [number, number] = [0.2, 1.2];

function inputsOf({ batch, heads, headDim, groups, dState, channelD, bare }: Sizes, length: number) {
  const always: Record<string, InputSpec> = {
    x: uniform([batch, length, heads, headDim]),
    dt: uniform([batch, length, heads], -2, 1),
    A: statistic([heads], -2, -0.2),
    B: uniform([batch, length, groups, dState]),
    C: uniform([batch, length, groups, dState]),
    initialState: statistic([batch, heads, headDim, dState], -3, 3),
  };
  if (bare) return always;
  return {
    ...always,
    D: statistic(channelD ? [heads, headDim] : [heads]),
    z: uniform([batch, length, heads, headDim], -2, 2),
    dtBias: statistic([heads], -1, 0),
  };
}

/** Inputs along the sequence; the others are parameters. */
const alongTokens: ReadonlySet<string> = new Set(["x", "dt", "B", "C", "z"]);

/** The inputs of tokens `from` up to `to`. */
function part(tensors: Tensors, from: number, to: number): Omit<Tensors, "initialState"> {
  const { initialState: _, ...inputs } = tensors;
  const cut = (name: string, x: Tensor) => (alongTokens.has(name) ? x.slice(1, from, to) : x);
  return Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, cut(name, x)]));
}

/**
 * Stretches of tokens, each up to where the state is whole again: the first two are taken in by the kernel itself, the third by settling
 * in the middle, after which one more token is settled, and settled again.
 */
function stretches(kept: number): readonly (readonly [number, number])[] {
  const middle = Math.ceil(kept / 2);
  const ends = [kept, 2 * kept, 2 * kept + middle, 2 * kept + middle + 1];
  return ends.map((end, i) => [i === 0 ? 0 : ends[i - 1], end]);
}

/** Tokens `from` up to `to` by the scan, one after the other, from a state in f32 (f64 in f64). */
function byScan(tensors: Tensors, state: Tensor, from: number, to: number, options: SsdCallOptions): Tensors {
  const ys: Tensor[] = [];
  let initialState = state;
  for (let t = from; t < to; t++) {
    const inputs = { ...part(tensors, t, t + 1), initialState } as unknown as SsdTensors;
    const { y, finalState } = ssdScan(inputs, options);
    ys.push(y);
    initialState = finalState;
  }
  return { y: concat(ys, 1), state: initialState };
}

const outsideTape = <T>(compute: () => T): T => noGrad(() => scope(compute));

/** y of a stretch and the state after it. */
interface Outcome {
  readonly found: Readonly<Record<string, HostTensor>>;
  /** By the scan, from the same state in f32. */
  readonly wanted: Readonly<Record<string, HostTensor>>;
}

/** All stretches, and the state settled once more. `recorded`: each token from a recording, where the device can record. */
async function decodeTokens(sizes: Sizes, tensors: Tensors, stateType: DType, recorded: boolean): Promise<Outcome[]> {
  const { initialState, x, A } = tensors;
  const { device } = x;
  const options = sizes.bare ? {} : { dtLimit: limits };
  const state = outsideTape(() => initialState.cast(stateType).clone());
  const count = device.zeros([], "i32");
  const one = device.full([], 1, "i32");
  const kept = keptTokens(sizes, sizes.kept, x.dtype, count);
  // The token that is read next, as a step of decoding has it: always in the same memory.
  const token = outsideTape(() =>
    Object.fromEntries(Object.entries(part(tensors, 0, 1)).map(([name, input]) => [name, input.clone()])),
  );
  const step = () => {
    const inputs = { ...token, initialState: state } as unknown as SsdTensors & { initialState: Tensor };
    const y = ssdDeferred(inputs, kept, options);
    count.addInPlace(one);
    return y;
  };
  const recording = recorded && device.canRecord ? device.record(() => outsideTape(step)) : undefined;
  const next = (t: number): Tensor => {
    for (const [name, input] of Object.entries(part(tensors, t, t + 1))) token[name].assign(input);
    recording?.replay();
    return recording ? recording.result.clone() : step();
  };
  const outcomes: Outcome[] = [];
  for (const [from, to] of stretches(sizes.kept)) {
    const wanted = await takeAll(outsideTape(() => byScan(tensors, state.cast(A.dtype), from, to, options)));
    const y = outsideTape(() => {
      const ys: Tensor[] = [];
      for (let t = from; t < to; t++) ys.push(next(t));
      return concat(ys, 1);
    });
    if ((to - from) % sizes.kept !== 0) {
      ssdSettle(state, A, kept);
      count.fillInPlace(0);
    }
    outcomes.push({ wanted, found: await takeAll({ y, state: state.clone() }) });
  }
  ssdSettle(state, A, kept);
  const { found } = outcomes[outcomes.length - 1];
  outcomes.push({ wanted: { again: found.state }, found: await takeAll({ again: state.clone() }) });
  recording?.dispose();
  for (const tensor of [state, one, ...Object.values(kept), ...Object.values(token)]) tensor.dispose();
  return outcomes;
}

async function checkDeferred(sizes: Sizes, tensors: Tensors, stateType: DType, tolerance: number): Promise<Check[]> {
  const narrow = narrowTypes.find((type) => type === stateType);
  const outcomes = await decodeTokens(sizes, tensors, stateType, false);
  const replayed = await decodeTokens(sizes, tensors, stateType, true);
  return outcomes.flatMap(({ found, wanted }, i) =>
    Object.entries(wanted).flatMap(([key, value]) => {
      const name = `states in ${stateType}: ${key} of stretch ${i}`;
      const same =
        key === "again"
          ? compareBits(name, found[key], value)
          : narrow && key === "state"
            ? compareRounded(name, found[key], value, narrow)
            : compareValues(name, decode(found[key]), decode(value), tolerance);
      return [same, compareBits(`${name}, recorded`, replayed[i].found[key], found[key])];
    }),
  );
}

function deferred(sizes: Sizes): Property {
  const { heads, headDim, groups, dState, kept, bare, channelD } = sizes;
  const shape = `${heads} heads of ${headDim}, ${groups} groups, N ${dState}`;
  const name = `ssdScan: tokens deferred, ${kept} at a time, ${shape}${bare ? ", nothing optional" : channelD ? ", D by channel" : ""}`;
  const run = async (device: Device, dtype: DType): Promise<Check[]> => {
    if (!isFloatType(dtype)) throw new TypeError(`${name}: ${dtype} is no float`);
    const world = worldOf(device, dtype);
    const length = stretches(kept).slice(-1)[0][1];
    const tensors = placeInputs(drawInputs(name, inputsOf(sizes, length), dtype), world);
    const checks: Check[] = [];
    for (const stateType of [world.statistic, ...narrowTypes]) {
      checks.push(...(await checkDeferred(sizes, tensors, stateType, tolerances.equal[dtype].forward)));
    }
    for (const tensor of Object.values(tensors)) tensor.dispose();
    return checks;
  };
  return { name, dtypes: floatTypes, kernel: "ssdDeferred", run };
}

// States of 64 and 128, which kernels take whole; heads of a block's width, and several or a part of one to a block.
export const deferredTokenProperties: readonly Property[] = [
  deferred({ batch: 2, heads: 2, headDim: 64, groups: 1, dState: 128, kept: 16 }),
  deferred({ batch: 2, heads: 8, headDim: 32, groups: 2, dState: 64, kept: 16, channelD: true }),
  deferred({ batch: 2, heads: 6, headDim: 16, groups: 2, dState: 64, kept: 5 }),
  deferred({ batch: 1, heads: 2, headDim: 128, groups: 1, dState: 64, kept: 2, channelD: true }),
  deferred({ batch: 3, heads: 2, headDim: 64, groups: 2, dState: 64, kept: 1, bare: true }),
];
