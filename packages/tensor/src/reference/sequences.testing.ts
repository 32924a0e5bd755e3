// Layer: tests of the reference backend. The three sequence routines in one form, so that state, packing and padding are
// tested once for all of them. Is no part of the package.

import type { View } from "../view.js";
import { type Routine, type Samples, sample } from "./checks.testing.js";
import { routines } from "./routines.js";

export interface SequenceFixed {
  readonly seqIdx?: View;
  readonly lengths?: View;
}

export interface SequenceRoutine {
  readonly name: string;
  /** The inputs that are (B, L, ...); `initialState` is (B, ...), the rest are parameters. */
  readonly tokens: readonly string[];
  readonly chunkSizes: readonly number[];
  inputs(next: () => number, batch: number, length: number): Samples;
  routine(inputs: Samples, chunkSize: number, fixed?: SequenceFixed): Routine;
}

const conv: SequenceRoutine = {
  name: "causalConv1d",
  tokens: ["x"],
  chunkSizes: [0],
  inputs: (next, batch, length) => ({
    x: sample(next, [batch, length, 3], -2, 2),
    weight: sample(next, [3, 4]),
    bias: sample(next, [3]),
    initialState: sample(next, [batch, 3, 4]),
  }),
  routine: ({ x, weight }, _, fixed) => ({
    forward: routines.causalConv1d,
    backward: routines.causalConv1dBackward,
    options: { activation: "silu" },
    outputs: { y: x.shape, finalState: [x.shape[0], ...weight.shape] },
    saved: {},
    rows: { x: 1, y: 1 },
    fixed: { ...fixed },
  }),
};

const scan: SequenceRoutine = {
  name: "selectiveScan",
  tokens: ["u", "delta", "B", "C", "z"],
  chunkSizes: [1, 3, 4, 64],
  inputs: (next, batch, length) => ({
    u: sample(next, [batch, length, 4]),
    delta: sample(next, [batch, length, 4]),
    A: sample(next, [4, 3], -2, -0.2),
    B: sample(next, [batch, length, 2, 3]),
    C: sample(next, [batch, length, 2, 3]),
    D: sample(next, [4]),
    z: sample(next, [batch, length, 4], -2, 2),
    deltaBias: sample(next, [4], -1, 0),
    initialState: sample(next, [batch, 4, 3]),
  }),
  routine: ({ u, A }, chunkSize, fixed) => {
    const [batch, length] = u.shape;
    return {
      forward: routines.selectiveScan,
      backward: routines.selectiveScanBackward,
      options: { deltaSoftplus: true, chunkSize },
      outputs: { y: u.shape, finalState: [batch, ...A.shape] },
      saved: { states: [batch, Math.ceil(length / chunkSize), ...A.shape] },
      rows: { u: 1, delta: 1, B: 2, C: 2, z: 1, y: 1 },
      fixed: { ...fixed },
    };
  },
};

const ssd: SequenceRoutine = {
  name: "ssdScan",
  tokens: ["x", "dt", "B", "C", "z"],
  chunkSizes: [1, 3, 4, 64],
  inputs: (next, batch, length) => ({
    x: sample(next, [batch, length, 4, 2]),
    dt: sample(next, [batch, length, 4]),
    A: sample(next, [4], -2, -0.2),
    B: sample(next, [batch, length, 2, 3]),
    C: sample(next, [batch, length, 2, 3]),
    D: sample(next, [4, 2]),
    z: sample(next, [batch, length, 4, 2], -2, 2),
    dtBias: sample(next, [4], -1, 0),
    initialState: sample(next, [batch, 4, 2, 3]),
  }),
  routine: ({ x, B }, chunkSize, fixed) => {
    const [batch, length, heads, headDim] = x.shape;
    const state = [heads, headDim, B.shape[3]];
    return {
      forward: routines.ssdScan,
      backward: routines.ssdScanBackward,
      options: { chunkSize, dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] },
      outputs: { y: x.shape, finalState: [batch, ...state] },
      saved: { states: [batch, Math.ceil(length / chunkSize), ...state] },
      rows: { x: 2, dt: 1, B: 2, C: 2, z: 2, y: 2 },
      fixed: { ...fixed },
    };
  },
};

export const sequenceRoutines: readonly SequenceRoutine[] = [conv, scan, ssd];
