// Layer: conformance. What holds for every sequence routine: step by step = in pieces = whole, any chunk size,
// packed = separate, padded = cut; outputs, final states and all gradients.
// Knows the sequence routines' calls. Knows no device by name.

import { causalConv1d, concat, noGrad, selectiveScan, ssdScan, type Tensor } from "@diffmamba/tensor";
import type { Tensors, World } from "../cases/case.js";
import { constant, given, type InputSpec, statistic, uniform } from "../cases/inputs.js";
import { floatTypes } from "../compare.js";
import { equality, type Property } from "./property.js";

interface CallOptions {
  readonly chunkSize?: number;
  readonly seqIdx?: Tensor;
  readonly lengths?: Tensor;
  readonly replacesState?: boolean;
}

interface Result {
  readonly y: Tensor;
  readonly finalState: Tensor;
}

/** A sequence routine with everything optional switched on. */
interface Routine {
  readonly name: string;
  /** Inputs that are (B, L, ...); `initialState` is (B, ...), all others are parameters. */
  readonly tokens: readonly string[];
  readonly inChunks: boolean;
  inputs(batch: number, length: number): Readonly<Record<string, InputSpec>>;
  call(inputs: Tensors, options: CallOptions): Result;
}

const conv: Routine = {
  name: "causalConv1d",
  tokens: ["x"],
  inChunks: false,
  inputs: (batch, length) => ({
    x: uniform([batch, length, 5], -2, 2),
    weight: uniform([5, 4]),
    bias: uniform([5]),
    initialState: statistic([batch, 5, 4]),
  }),
  call: ({ x, weight, bias, initialState }, { chunkSize: _, ...options }) =>
    causalConv1d(x, weight, { bias, initialState, ...options }),
};

const scan: Routine = {
  name: "selectiveScan",
  tokens: ["u", "delta", "B", "C", "z"],
  inChunks: true,
  inputs: (batch, length) => ({
    u: uniform([batch, length, 6]),
    delta: uniform([batch, length, 6]),
    A: statistic([6, 4], -2, -0.2),
    B: uniform([batch, length, 2, 4]),
    C: uniform([batch, length, 2, 4]),
    D: statistic([6]),
    z: uniform([batch, length, 6], -2, 2),
    deltaBias: statistic([6], -1, 0),
    initialState: statistic([batch, 6, 4]),
  }),
  call: ({ u, delta, A, B, C, D, z, deltaBias, initialState }, options) =>
    selectiveScan({ u, delta, A, B, C, D, z, deltaBias, initialState }, options),
};

const ssd: Routine = {
  name: "ssdScan",
  tokens: ["x", "dt", "B", "C", "z"],
  inChunks: true,
  inputs: (batch, length) => ({
    x: uniform([batch, length, 4, 3]),
    dt: uniform([batch, length, 4]),
    A: statistic([4], -2, -0.2),
    B: uniform([batch, length, 2, 4]),
    C: uniform([batch, length, 2, 4]),
    D: statistic([4, 3]),
    z: uniform([batch, length, 4, 3], -2, 2),
    dtBias: statistic([4], -1, 0),
    initialState: statistic([batch, 4, 3, 4]),
  }),
  call: ({ x, dt, A, B, C, D, z, dtBias, initialState }, options) =>
    ssdScan({ x, dt, A, B, C, D, z, dtBias, initialState }, { ...options, dtLimit: [0.05, 1] }),
};

const routines: readonly Routine[] = [conv, scan, ssd];

/** The inputs of tokens `start` up to `end` alone. */
function tokensOf({ tokens }: Routine, inputs: Tensors, start: number, end: number): Tensors {
  const cut = tokens.map((name) => [name, inputs[name].slice(1, start, end)]);
  return { ...inputs, ...Object.fromEntries(cut) };
}

/** The inputs of one row of the batch. */
function rowOf({ tokens }: Routine, inputs: Tensors, row: number): Tensors {
  const cut = [...tokens, "initialState"].map((name) => [name, inputs[name].slice(0, row, row + 1)]);
  return { ...inputs, ...Object.fromEntries(cut) };
}

/** Pieces of these lengths one after another, each beginning in the state that the one before left. */
function inPieces(routine: Routine, inputs: Tensors, lengths: readonly number[]): Tensors {
  const parts: Tensor[] = [];
  let { initialState } = inputs;
  let start = 0;
  for (const length of lengths) {
    const piece = { ...tokensOf(routine, inputs, start, start + length), initialState };
    const { y, finalState } = routine.call(piece, {});
    parts.push(y);
    initialState = finalState;
    start += length;
  }
  return { y: concat(parts, 1), finalState: initialState };
}

function stepByStep(routine: Routine): Property {
  const length = 19;
  return equality({
    name: `${routine.name}: step by step = in pieces = whole`,
    dtypes: floatTypes,
    inputs: routine.inputs(2, length),
    ways: {
      whole: (inputs) => ({ ...routine.call(inputs, {}) }),
      "step by step": (inputs) =>
        inPieces(
          routine,
          inputs,
          Array.from({ length }, () => 1),
        ),
      "in pieces": (inputs) => inPieces(routine, inputs, [5, 1, 1, 9, 3]),
    },
  });
}

function anyChunkSize(routine: Routine): Property {
  const ways = [64, 1, 7, 16, 256].map((chunkSize) => {
    return [`chunks of ${chunkSize}`, (inputs: Tensors) => ({ ...routine.call(inputs, { chunkSize }) })];
  });
  return equality({
    name: `${routine.name}: any chunk size`,
    dtypes: floatTypes,
    inputs: routine.inputs(1, 71),
    ways: Object.fromEntries(ways),
  });
}

/** Lengths of the sequences of each row; both rows have 17 tokens. */
const packing = [
  [5, 1, 8, 3],
  [16, 1],
];

function packed(routine: Routine): Property {
  const length = 17;
  const seqIdx = packing.flatMap((row) => row.flatMap((n, i) => Array.from({ length: n }, () => 2 * i)));
  return equality({
    name: `${routine.name}: packed = separate`,
    dtypes: floatTypes,
    inputs: { ...routine.inputs(packing.length, length), seqIdx: given([packing.length, length], seqIdx, "i32") },
    ways: {
      separate: (inputs, world) =>
        joinRows(packing.map((row, b) => separate(routine, rowOf(routine, inputs, b), row, world))),
      packed: ({ seqIdx: index, ...inputs }) => ({ ...routine.call(inputs, { seqIdx: index, chunkSize: 4 }) }),
    },
  });
}

/** Sequences of one row, each run by itself; only the first has the initial state. */
function separate(routine: Routine, inputs: Tensors, lengths: readonly number[], { device }: World): Result {
  const zeros = device.zeros(inputs.initialState.shape, inputs.initialState.dtype);
  const results: Result[] = [];
  let start = 0;
  for (const length of lengths) {
    const own = tokensOf(routine, inputs, start, start + length);
    results.push(routine.call(start === 0 ? own : { ...own, initialState: zeros }, {}));
    start += length;
  }
  const { finalState } = results[results.length - 1];
  return {
    y: concat(
      results.map(({ y }) => y),
      1,
    ),
    finalState,
  };
}

function joinRows(rows: readonly Result[]): Tensors {
  return {
    y: concat(
      rows.map(({ y }) => y),
      0,
    ),
    finalState: concat(
      rows.map(({ finalState }) => finalState),
      0,
    ),
  };
}

function padded(routine: Routine): Property {
  const length = 11;
  const lengths = [11, 4, 1, 0];
  const cut = (inputs: Tensors, count: number, { device }: World): Result => {
    const { y, finalState } = routine.call(tokensOf(routine, inputs, 0, Math.max(count, 1)), {});
    const [, , ...rest] = y.shape;
    if (count === 0) return { y: device.zeros([1, length, ...rest], y.dtype), finalState: inputs.initialState };
    return { y: concat([y, device.zeros([1, length - count, ...rest], y.dtype)], 1), finalState };
  };
  return equality({
    name: `${routine.name}: padded = cut`,
    dtypes: floatTypes,
    inputs: { ...routine.inputs(lengths.length, length), lengths: given([lengths.length], lengths, "i32") },
    ways: {
      cut: (inputs, world) => joinRows(lengths.map((count, b) => cut(rowOf(routine, inputs, b), count, world))),
      padded: ({ lengths: ends, ...inputs }) => ({ ...routine.call(inputs, { lengths: ends, chunkSize: 4 }) }),
    },
  });
}

/** One token: the state that is replaced in place is the one that is made beside it; a row without a token keeps its own. */
function inPlace(routine: Routine): Property {
  const lengths = [1, 0, 1];
  const run = ({ lengths: ends, initialState, ...inputs }: Tensors, replacesState: boolean) => {
    const state = initialState.clone();
    const { y, finalState } = noGrad(() =>
      routine.call({ ...inputs, initialState: state }, { lengths: ends, replacesState }),
    );
    return { y, state: replacesState ? state : finalState };
  };
  return equality({
    name: `${routine.name}: state replaced in place = apart`,
    dtypes: floatTypes,
    inputs: constants({ ...routine.inputs(3, 1), lengths: given([3], lengths, "i32") }),
    ways: { apart: (inputs) => run(inputs, false), "in place": (inputs) => run(inputs, true) },
  });
}

/** One token with a state of a published size, for which backends have a form of their own: as the same one of a padded row. */
function oneToken(dState: number): Property {
  const [batch, heads, headDim] = [3, 2, 16];
  const shared = [batch, 1, 1, dState];
  const run = ({ lengths, x, dt, A, B, C, ...optional }: Tensors, padded: boolean) => {
    const options = { ...(padded && { lengths }), dtSoftplus: true };
    const { y, finalState } = noGrad(() => ssdScan({ x, dt, A, B, C, ...optional }, options));
    return { y, state: finalState };
  };
  return equality({
    name: `ssdScan: a token of N ${dState} = one of a padded row`,
    dtypes: floatTypes,
    inputs: constants({
      x: uniform([batch, 1, heads, headDim]),
      dt: uniform([batch, 1, heads], -2, 1),
      A: statistic([heads], -2, -0.2),
      B: uniform(shared),
      C: uniform(shared),
      D: statistic([heads]),
      z: uniform([batch, 1, heads, headDim], -2, 2),
      dtBias: statistic([heads], -1, 0),
      initialState: statistic([batch, heads, headDim, dState]),
      lengths: given([batch], [1, 1, 1], "i32"),
    }),
    ways: { padded: (inputs) => run(inputs, true), alone: (inputs) => run(inputs, false) },
  });
}

/** One token of more rows than few, with a state of 16, for which backends have a form of their own: as the same one of padded rows. */
function oneTokenOfRows(groups: number): Property {
  const [batch, channels, dState] = [10, 48, 16];
  const run = ({ lengths, u, delta, A, B, C, ...optional }: Tensors, padded: boolean) => {
    const options = { ...(padded && { lengths }), deltaSoftplus: true };
    const { y, finalState } = noGrad(() => selectiveScan({ u, delta, A, B, C, ...optional }, options));
    return { y, state: finalState };
  };
  return equality({
    name: `selectiveScan: a token of ${batch} rows, ${groups} groups = one of padded rows`,
    dtypes: floatTypes,
    inputs: constants({
      u: uniform([batch, 1, channels]),
      delta: uniform([batch, 1, channels], -2, 1),
      A: statistic([channels, dState], -2, -0.2),
      B: uniform([batch, 1, groups, dState]),
      C: uniform([batch, 1, groups, dState]),
      D: statistic([channels]),
      z: uniform([batch, 1, channels], -2, 2),
      deltaBias: statistic([channels], -1, 0),
      initialState: statistic([batch, channels, dState]),
      lengths: given(
        [batch],
        Array.from({ length: batch }, () => 1),
        "i32",
      ),
    }),
    ways: { padded: (inputs) => run(inputs, true), alone: (inputs) => run(inputs, false) },
  });
}

const constants = (inputs: Readonly<Record<string, InputSpec>>) =>
  Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, constant(input)]));

export const sequenceProperties: readonly Property[] = [
  ...routines.flatMap((routine) => [
    stepByStep(routine),
    ...(routine.inChunks ? [anyChunkSize(routine)] : []),
    packed(routine),
    padded(routine),
    inPlace(routine),
  ]),
  ...[64, 128, 256].map(oneToken),
  ...[1, 2].map(oneTokenOfRows),
];
