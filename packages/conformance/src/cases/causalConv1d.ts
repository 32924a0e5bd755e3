// Layer: conformance. Cases of the causal convolution: short rows, state in and out, packing, padding, packed projections.
// Knows the op's call. Knows no device by name.

import { causalConv1d } from "@diffmamba/tensor";
import { type OpCase, opCase, type Tensors } from "./case.js";
import { given, type InputSpec, statistic, uniform } from "./inputs.js";

interface ConvCase {
  readonly name: string;
  /** B, L, C, W */
  readonly sizes: readonly [number, number, number, number];
  readonly bias?: boolean;
  readonly initialState?: boolean;
  readonly seqIdx?: readonly number[];
  readonly lengths?: readonly number[];
  readonly activation?: "silu" | "none";
  readonly loss?: readonly string[];
}

function convCase({ name, sizes, bias, initialState, seqIdx, lengths, activation, loss }: ConvCase): OpCase {
  const [batch, length, channels, width] = sizes;
  const inputs: Record<string, InputSpec> = {
    x: uniform([batch, length, channels], -2, 2),
    weight: uniform([channels, width]),
    ...(bias && { bias: uniform([channels]) }),
    ...(initialState && { initialState: statistic([batch, channels, width]) }),
    ...(seqIdx && { seqIdx: given([batch, length], seqIdx, "i32") }),
    ...(lengths && { lengths: given([batch], lengths, "i32") }),
  };
  return opCase({
    op: "causalConv1d",
    name,
    inputs,
    outputs: ({ x, weight, ...options }: Tensors) => ({ ...causalConv1d(x, weight, { ...options, activation }) }),
    ...(loss && { loss }),
  });
}

export const convCases: readonly OpCase[] = [
  convCase({ name: "one token", sizes: [2, 1, 3, 4], bias: true }),
  convCase({ name: "shorter than the filter", sizes: [2, 3, 5, 4], bias: true }),
  convCase({ name: "no bias, no activation", sizes: [2, 9, 5, 4], activation: "none" }),
  convCase({ name: "width 3", sizes: [1, 8, 6, 3], bias: true }),
  convCase({ name: "width 2", sizes: [2, 7, 3, 2] }),
  convCase({ name: "width 1", sizes: [2, 7, 3, 1], bias: true, initialState: true }),
  convCase({ name: "no tokens: the state stays", sizes: [2, 0, 3, 4], bias: true, initialState: true }),
  convCase({ name: "no rows", sizes: [0, 5, 3, 4], bias: true }),
  convCase({ name: "initial state", sizes: [2, 9, 3, 4], bias: true, initialState: true }),
  convCase({ name: "initial state, shorter than the filter", sizes: [2, 2, 3, 4], bias: true, initialState: true }),
  convCase({ name: "loss of y alone", sizes: [2, 6, 3, 4], bias: true, initialState: true, loss: ["y"] }),
  convCase({ name: "loss of the state alone", sizes: [2, 3, 3, 4], initialState: true, loss: ["finalState"] }),
  convCase({
    name: "packed sequences",
    sizes: [2, 9, 3, 4],
    bias: true,
    initialState: true,
    seqIdx: [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 3, 3, 5, 5, 5, 5, 5, 6],
  }),
  convCase({
    name: "padded rows",
    sizes: [4, 7, 3, 4],
    bias: true,
    initialState: true,
    lengths: [7, 3, 1, 0],
  }),
  convCase({
    name: "packed and padded",
    sizes: [2, 8, 3, 4],
    bias: true,
    initialState: true,
    seqIdx: [0, 0, 0, 0, 0, 1, 1, 2, 0, 1, 1, 1, 1, 1, 1, 1],
    lengths: [7, 5],
  }),
  opCase({
    op: "causalConv1d",
    name: "a part of a packed projection",
    inputs: { packed: uniform([2, 6, 11]), weight: uniform([4, 4]), bias: uniform([4]) },
    outputs: ({ packed, weight, bias }) => {
      const [gate, x, rest] = packed.split([3, 4, 4]);
      const { y, finalState } = causalConv1d(x, weight, { bias });
      return { y: y.mul(rest), finalState, gate };
    },
  }),
  opCase({
    op: "causalConv1d",
    name: "channels first, transposed",
    inputs: { x: uniform([2, 5, 7]), weight: uniform([4, 5]) },
    outputs: ({ x, weight }) => ({ ...causalConv1d(x.transpose(), weight.transpose()) }),
  }),
  convCase({ name: "large", sizes: [3, 67, 70, 4], bias: true, initialState: true }),
];
