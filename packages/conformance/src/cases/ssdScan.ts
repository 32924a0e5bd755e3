// Layer: conformance. Cases of the Mamba-2 scan: chunks, groups, both forms of D, limits of dt, gate, state in and out,
// packing, padding. Knows the op's call. Knows no device by name.

import { type SsdTensors, ssdScan } from "@diffmamba/tensor";
import { type OpCase, opCase, type Tensors } from "./case.js";
import { given, type InputSpec, statistic, uniform } from "./inputs.js";

type Optional = "D" | "z" | "dtBias" | "initialState";

interface SsdCase {
  readonly name: string;
  /** B, L, H, P, N, G */
  readonly sizes: readonly [number, number, number, number, number, number];
  readonly optional?: readonly Optional[];
  /** D is (H, P), not (H,). */
  readonly channelD?: boolean;
  readonly seqIdx?: readonly number[];
  readonly lengths?: readonly number[];
  readonly dtSoftplus?: boolean;
  readonly dtLimit?: readonly [number, number];
  readonly chunkSize?: number;
  readonly loss?: readonly string[];
}

const all: readonly Optional[] = ["D", "z", "dtBias", "initialState"];

function ssdCase(options: SsdCase): OpCase {
  const { name, sizes, optional = all, channelD, seqIdx, lengths, loss } = options;
  const { dtSoftplus = true, dtLimit, chunkSize } = options;
  const [batch, length, heads, headDim, state, groups] = sizes;
  const specs: Record<Optional, InputSpec> = {
    D: statistic(channelD ? [heads, headDim] : [heads]),
    z: uniform([batch, length, heads, headDim], -2, 2),
    dtBias: statistic([heads], -1, 0),
    initialState: statistic([batch, heads, headDim, state]),
  };
  const inputs: Record<string, InputSpec> = {
    x: uniform([batch, length, heads, headDim]),
    dt: dtSoftplus ? uniform([batch, length, heads]) : uniform([batch, length, heads], 0.05, 0.8),
    A: statistic([heads], -2, -0.2),
    B: uniform([batch, length, groups, state]),
    C: uniform([batch, length, groups, state]),
    ...Object.fromEntries(optional.map((key) => [key, specs[key]])),
    ...(seqIdx && { seqIdx: given([batch, length], seqIdx, "i32") }),
    ...(lengths && { lengths: given([batch], lengths, "i32") }),
  };
  return opCase({
    op: "ssdScan",
    name,
    inputs,
    outputs: ({ x, dt, A, B, C, D, z, dtBias, initialState, ...sequence }: Tensors) => ({
      ...ssdScan({ x, dt, A, B, C, D, z, dtBias, initialState } satisfies SsdTensors, {
        ...sequence,
        dtSoftplus,
        dtLimit,
        chunkSize,
      }),
    }),
    ...(loss && { loss }),
  });
}

export const ssdScanCases: readonly OpCase[] = [
  ssdCase({ name: "one token", sizes: [2, 1, 2, 3, 4, 1] }),
  ssdCase({ name: "nothing optional", sizes: [2, 5, 2, 3, 2, 1], optional: [] }),
  ssdCase({ name: "all that is optional", sizes: [2, 5, 2, 3, 2, 1] }),
  ssdCase({ name: "D by channel", sizes: [2, 5, 2, 3, 2, 1], channelD: true }),
  ssdCase({ name: "several chunks and a rest", sizes: [1, 11, 2, 2, 3, 1], chunkSize: 4 }),
  ssdCase({ name: "chunks of one token", sizes: [1, 5, 2, 2, 3, 1], chunkSize: 1 }),
  ssdCase({ name: "two groups", sizes: [2, 5, 4, 2, 3, 2], chunkSize: 2, channelD: true }),
  ssdCase({ name: "one group a head", sizes: [1, 5, 3, 2, 2, 3], chunkSize: 4 }),
  ssdCase({ name: "dt as it is", sizes: [1, 6, 2, 3, 2, 1], dtSoftplus: false, optional: ["D"] }),
  ssdCase({ name: "dt within limits", sizes: [2, 6, 3, 2, 2, 1], dtLimit: [0.3, 0.6], chunkSize: 4 }),
  ssdCase({ name: "no tokens: the state stays", sizes: [2, 0, 2, 3, 4, 1] }),
  ssdCase({ name: "no rows", sizes: [0, 4, 2, 3, 2, 1] }),
  ssdCase({ name: "loss of y alone", sizes: [1, 5, 2, 3, 2, 1], chunkSize: 2, loss: ["y"] }),
  ssdCase({ name: "loss of the state alone", sizes: [1, 5, 2, 3, 2, 1], chunkSize: 2, loss: ["finalState"] }),
  ssdCase({
    name: "packed sequences",
    sizes: [2, 8, 2, 2, 3, 1],
    chunkSize: 4,
    seqIdx: [0, 0, 0, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 5, 5],
  }),
  ssdCase({ name: "padded rows", sizes: [4, 6, 2, 2, 2, 1], chunkSize: 4, lengths: [6, 4, 1, 0] }),
  ssdCase({
    name: "packed and padded",
    sizes: [2, 7, 2, 2, 2, 1],
    chunkSize: 3,
    seqIdx: [0, 0, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0, 1, 1],
    lengths: [6, 7],
  }),
  opCase({
    op: "ssdScan",
    name: "parts of a packed projection",
    inputs: { packed: uniform([2, 5, 26]), A: statistic([2], -2, -0.2) },
    outputs: ({ packed, A }) => {
      // z | x | B | C | dt, as a Mamba-2 mixer projects them: 6 + 6 + 2 * 3 + 2 * 3 + 2.
      const [z, x, B, C, dt] = packed.split([6, 6, 6, 6, 2]);
      const grouped = { B: B.reshape(2, 5, 2, 3), C: C.reshape(2, 5, 2, 3) };
      const heads = { x: x.reshape(2, 5, 2, 3), z: z.reshape(2, 5, 2, 3) };
      return { ...ssdScan({ ...heads, ...grouped, dt, A }, { chunkSize: 2 }) };
    },
  }),
  opCase({
    op: "ssdScan",
    name: "heads first, transposed",
    inputs: {
      x: uniform([2, 2, 5, 3]),
      dt: uniform([2, 2, 5]),
      A: statistic([2], -2, -0.2),
      B: uniform([2, 1, 5, 2]),
      C: uniform([2, 1, 5, 2]),
    },
    outputs: ({ x, dt, A, B, C }) => ({
      ...ssdScan({
        x: x.transpose(1, 2),
        dt: dt.transpose(),
        A,
        B: B.transpose(1, 2),
        C: C.transpose(1, 2),
      }),
    }),
  }),
  ssdCase({ name: "large", sizes: [2, 150, 4, 8, 16, 2], channelD: true }),
];
