// Layer: conformance. Cases of the selective scan: chunks, groups, gate, state in and out, packing, padding.
// Knows the op's call. Knows no device by name.

import { type SelectiveScanTensors, selectiveScan } from "@diffmamba/tensor";
import { type OpCase, opCase, type Tensors } from "./case.js";
import { given, type InputSpec, statistic, uniform } from "./inputs.js";

type Optional = "D" | "z" | "deltaBias" | "initialState";

interface ScanCase {
  readonly name: string;
  /** B, L, D, N, G */
  readonly sizes: readonly [number, number, number, number, number];
  readonly optional?: readonly Optional[];
  readonly seqIdx?: readonly number[];
  readonly lengths?: readonly number[];
  readonly deltaSoftplus?: boolean;
  readonly chunkSize?: number;
  readonly loss?: readonly string[];
}

const all: readonly Optional[] = ["D", "z", "deltaBias", "initialState"];

function scanCase(options: ScanCase): OpCase {
  const { name, sizes, optional = all, seqIdx, lengths, deltaSoftplus = true, chunkSize, loss } = options;
  const [batch, length, channels, state, groups] = sizes;
  const specs: Record<Optional, InputSpec> = {
    D: statistic([channels]),
    z: uniform([batch, length, channels], -2, 2),
    deltaBias: statistic([channels], -1, 0),
    initialState: statistic([batch, channels, state]),
  };
  const inputs: Record<string, InputSpec> = {
    u: uniform([batch, length, channels]),
    delta: deltaSoftplus ? uniform([batch, length, channels]) : uniform([batch, length, channels], 0.05, 0.8),
    A: statistic([channels, state], -2, -0.2),
    B: uniform([batch, length, groups, state]),
    C: uniform([batch, length, groups, state]),
    ...Object.fromEntries(optional.map((key) => [key, specs[key]])),
    ...(seqIdx && { seqIdx: given([batch, length], seqIdx, "i32") }),
    ...(lengths && { lengths: given([batch], lengths, "i32") }),
  };
  return opCase({
    op: "selectiveScan",
    name,
    inputs,
    outputs: ({ u, delta, A, B, C, D, z, deltaBias, initialState, ...sequence }: Tensors) => ({
      ...selectiveScan({ u, delta, A, B, C, D, z, deltaBias, initialState } satisfies SelectiveScanTensors, {
        ...sequence,
        deltaSoftplus,
        chunkSize,
      }),
    }),
    ...(loss && { loss }),
  });
}

export const selectiveScanCases: readonly OpCase[] = [
  scanCase({ name: "one token", sizes: [2, 1, 3, 4, 1] }),
  scanCase({ name: "nothing optional", sizes: [2, 5, 3, 4, 1], optional: [] }),
  scanCase({ name: "all that is optional", sizes: [2, 6, 3, 4, 1] }),
  scanCase({ name: "several chunks and a rest", sizes: [1, 11, 3, 2, 1], chunkSize: 4 }),
  scanCase({ name: "chunks of one token", sizes: [1, 5, 2, 3, 1], chunkSize: 1 }),
  scanCase({ name: "two groups", sizes: [2, 5, 4, 3, 2], chunkSize: 2 }),
  scanCase({ name: "one group a channel", sizes: [1, 5, 3, 2, 3] }),
  scanCase({ name: "delta as it is", sizes: [1, 6, 3, 4, 1], deltaSoftplus: false, optional: ["z"] }),
  scanCase({ name: "no tokens: the state stays", sizes: [2, 0, 3, 4, 1] }),
  scanCase({ name: "no rows", sizes: [0, 4, 3, 2, 1] }),
  scanCase({ name: "loss of y alone", sizes: [1, 5, 3, 2, 1], loss: ["y"] }),
  scanCase({ name: "loss of the state alone", sizes: [1, 5, 3, 2, 1], chunkSize: 2, loss: ["finalState"] }),
  scanCase({
    name: "packed sequences",
    sizes: [2, 8, 3, 2, 1],
    chunkSize: 4,
    seqIdx: [0, 0, 0, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 5, 5],
  }),
  scanCase({ name: "padded rows", sizes: [4, 6, 2, 3, 1], chunkSize: 4, lengths: [6, 4, 1, 0] }),
  scanCase({
    name: "packed and padded",
    sizes: [2, 7, 2, 3, 1],
    chunkSize: 3,
    seqIdx: [0, 0, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0, 1, 1],
    lengths: [6, 7],
  }),
  opCase({
    op: "selectiveScan",
    name: "parts of packed projections, B and C without groups",
    inputs: { packed: uniform([2, 5, 14]), delta: uniform([2, 5, 3]), A: statistic([3, 4], -2, -0.2) },
    outputs: ({ packed, delta, A }) => {
      const [z, u, B, C] = packed.split([3, 3, 4, 4]);
      return { ...selectiveScan({ u, delta, A, B, C, z }, { chunkSize: 2 }) };
    },
  }),
  opCase({
    op: "selectiveScan",
    name: "channels first, transposed",
    inputs: {
      u: uniform([2, 3, 5]),
      delta: uniform([2, 3, 5]),
      A: statistic([2, 3], -2, -0.2),
      B: uniform([2, 1, 2, 5]),
      C: uniform([2, 1, 2, 5]),
    },
    outputs: ({ u, delta, A, B, C }) => ({
      ...selectiveScan({
        u: u.transpose(),
        delta: delta.transpose(),
        A: A.transpose(),
        B: B.permute(0, 3, 1, 2),
        C: C.permute(0, 3, 1, 2),
      }),
    }),
  }),
  scanCase({ name: "large", sizes: [2, 133, 20, 16, 2] }),
];
