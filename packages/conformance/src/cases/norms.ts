// Layer: conformance. Cases of RMSNorm, plain, gated and grouped, of LayerNorm, and of the cross-entropy.
// Knows the ops' calls. Knows no device by name.

import { addRmsNorm, layerNorm, linearCrossEntropy, rmsNorm, softmaxCrossEntropy } from "@diffmamba/tensor";
import { type OpCase, opCase } from "./case.js";
import { constant, given, index, statistic, uniform } from "./inputs.js";

const rmsCases = [
  opCase({
    op: "rmsNorm",
    name: "plain",
    inputs: { x: uniform([5, 7]), weight: uniform([7], 0.5, 1.5) },
    outputs: ({ x, weight }) => ({ y: rmsNorm(x, weight) }),
  }),
  opCase({
    op: "rmsNorm",
    name: "a single row, three axes, one channel",
    inputs: {
      x: uniform([6]),
      weight: uniform([6]),
      wide: uniform([2, 3, 6]),
      narrow: uniform([4, 1], 1, 2),
      one: uniform([1]),
    },
    outputs: ({ x, weight, wide, narrow, one }) => ({
      row: rmsNorm(x, weight),
      wide: rmsNorm(wide, weight, { eps: 1e-3 }),
      narrow: rmsNorm(narrow, one, { eps: 0.5 }),
    }),
  }),
  ...[false, true].flatMap((normBeforeGate): OpCase[] => [
    opCase({
      op: "rmsNorm",
      name: `gate ${normBeforeGate ? "after" : "before"} the norm`,
      inputs: { x: uniform([5, 6]), weight: uniform([6], 0.5, 1.5), z: uniform([5, 6], -2, 2) },
      outputs: ({ x, weight, z }) => ({ y: rmsNorm(x, weight, { gate: z, normBeforeGate }) }),
    }),
    opCase({
      op: "rmsNorm",
      name: `in groups, gate ${normBeforeGate ? "after" : "before"} the norm`,
      inputs: { x: uniform([3, 12]), weight: uniform([12], 0.5, 1.5), z: uniform([3, 12], -2, 2) },
      outputs: ({ x, weight, z }) => ({ y: rmsNorm(x, weight, { gate: z, normBeforeGate, groupSize: 4 }) }),
    }),
  ]),
  opCase({
    op: "rmsNorm",
    name: "a row of zeros",
    inputs: { x: given([2, 4], [0, 0, 0, 0, 1, -2, 0.5, 3]), weight: uniform([4]) },
    outputs: ({ x, weight }) => ({ y: rmsNorm(x, weight, { eps: 0.01 }) }),
  }),
  opCase({
    op: "rmsNorm",
    name: "no rows",
    inputs: { x: uniform([0, 4]), weight: uniform([4]) },
    outputs: ({ x, weight }) => ({ y: rmsNorm(x, weight) }),
  }),
  opCase({
    op: "rmsNorm",
    name: "parts of a packed tensor, strided",
    inputs: { packed: uniform([2, 3, 10]), x: uniform([6, 4]), weight: uniform([4]), six: uniform([6]) },
    outputs: ({ packed, x, weight, six }) => {
      const [a, rest, b] = packed.split([4, 2, 4]);
      return { y: rmsNorm(a, weight, { gate: b }), rest, z: rmsNorm(x.transpose(), six) };
    },
  }),
  opCase({
    op: "rmsNorm",
    name: "large, in groups",
    inputs: { x: uniform([67, 384]), weight: uniform([384]), z: uniform([67, 384], -2, 2) },
    outputs: ({ x, weight, z }) => ({ y: rmsNorm(x, weight, { gate: z, groupSize: 192 }) }),
  }),
];

const addCases = [
  opCase({
    op: "addRmsNorm",
    name: "a sum and its norm",
    inputs: { x: uniform([5, 7]), y: uniform([5, 7]), weight: uniform([7], 0.5, 1.5) },
    outputs: ({ x, y, weight }) => addRmsNorm(x, y, weight),
  }),
  opCase({
    op: "addRmsNorm",
    name: "the residual stream in the type of statistics",
    inputs: { x: statistic([2, 3, 6]), y: uniform([2, 3, 6]), weight: uniform([6], 0.5, 1.5) },
    outputs: ({ x, y, weight }) => addRmsNorm(x, y, weight, { eps: 1e-3 }),
  }),
  opCase({
    op: "addRmsNorm",
    name: "only the norm is used, then only the sum",
    inputs: { x: statistic([4, 6]), y: uniform([4, 6]), weight: uniform([6], 0.5, 1.5) },
    outputs: ({ x, y, weight }) => ({ normed: addRmsNorm(x, y, weight).normed, sum: addRmsNorm(x, y, weight).sum }),
  }),
  opCase({
    op: "addRmsNorm",
    name: "nothing is added",
    inputs: { x: statistic([4, 6]), weight: uniform([6], 0.5, 1.5) },
    outputs: ({ x, weight }) => {
      const { sum, normed } = addRmsNorm(x, undefined, weight);
      return { sum: sum.mul(2), normed };
    },
  }),
  opCase({
    op: "addRmsNorm",
    name: "a chain of layers, whose norms are made again",
    inputs: {
      ...{ x: statistic([3, 6]), y: uniform([3, 6]), w1: uniform([6], 0.5, 1.5), w2: uniform([6], 0.5, 1.5) },
      ...{ a: uniform([6, 6]), b: uniform([6, 6]) },
    },
    outputs: ({ x, y, w1, w2, a, b }) => {
      const first = addRmsNorm(x, y, w1);
      const second = addRmsNorm(first.sum, first.normed.matmul(a), w2);
      return { sum: second.sum, y: second.normed.matmul(b) };
    },
  }),
  opCase({
    op: "addRmsNorm",
    name: "parts of a packed tensor, strided, and no rows",
    inputs: {
      ...{ packed: uniform([2, 3, 10]), x: uniform([6, 4]), y: uniform([4, 6]), weight: uniform([4]) },
      ...{ none: uniform([0, 4]), nothing: uniform([0, 4]) },
    },
    outputs: ({ packed, x, y, weight, none, nothing }) => {
      const [a, rest, b] = packed.split([4, 2, 4]);
      const strided = addRmsNorm(x, y.transpose(), weight);
      const empty = addRmsNorm(none, nothing, weight).normed;
      return { ...addRmsNorm(a, b, weight), rest, s: strided.sum, n: strided.normed, empty };
    },
  }),
  opCase({
    op: "addRmsNorm",
    name: "large",
    inputs: { x: statistic([67, 776]), y: uniform([67, 776]), weight: uniform([776], 0.5, 1.5) },
    outputs: ({ x, y, weight }) => addRmsNorm(x, y, weight),
  }),
];

const layerCases = [
  opCase({
    op: "layerNorm",
    name: "with a bias",
    inputs: { x: uniform([5, 7], -1, 3), weight: uniform([7], 0.5, 1.5), bias: uniform([7]) },
    outputs: ({ x, weight, bias }) => ({ y: layerNorm(x, weight, { bias }) }),
  }),
  opCase({
    op: "layerNorm",
    name: "without a bias, three axes, a single row",
    inputs: { x: uniform([2, 3, 5]), weight: uniform([5]), row: uniform([5]) },
    outputs: ({ x, weight, row }) => ({ y: layerNorm(x, weight, { eps: 1e-3 }), z: layerNorm(row, weight) }),
  }),
  opCase({
    op: "layerNorm",
    name: "a part of a packed tensor, strided",
    inputs: { packed: uniform([3, 9]), x: uniform([4, 6]), weight: uniform([4]), bias: uniform([4]) },
    outputs: ({ packed, x, weight, bias }) => {
      const [a, rest] = packed.split([4, 5]);
      return { y: layerNorm(a, weight, { bias }), rest, z: layerNorm(x.transpose(), weight, { bias }) };
    },
  }),
  opCase({
    op: "layerNorm",
    name: "no rows",
    inputs: { x: uniform([0, 4]), weight: uniform([4]), bias: uniform([4]) },
    outputs: ({ x, weight, bias }) => ({ y: layerNorm(x, weight, { bias }) }),
  }),
  opCase({
    op: "layerNorm",
    name: "far from 0: the mean is taken off first",
    dtypes: ["f64", "f32"],
    inputs: { x: uniform([4, 64], 255, 257), weight: constant(uniform([64])) },
    outputs: ({ x, weight }) => ({ y: layerNorm(x, weight) }),
  }),
  opCase({
    op: "layerNorm",
    name: "large",
    inputs: { x: uniform([67, 300]), weight: uniform([300]), bias: uniform([300]) },
    outputs: ({ x, weight, bias }) => ({ y: layerNorm(x, weight, { bias }) }),
  }),
];

const entropyCases = [
  ...(["mean", "sum", "none"] as const).map((reduction) =>
    opCase({
      op: "softmaxCrossEntropy",
      name: `${reduction}, with an ignored target`,
      inputs: { logits: uniform([6, 7], -3, 3), targets: given([6], [0, 6, -100, 3, 3, 1], "i32") },
      outputs: ({ logits, targets }) => ({ loss: softmaxCrossEntropy(logits, targets, { reduction }) }),
    }),
  ),
  opCase({
    op: "softmaxCrossEntropy",
    name: "a batch of sequences, another mark of the ignored",
    inputs: { logits: uniform([2, 4, 5], -3, 3), targets: given([2, 4], [0, 1, 2, 3, 4, -1, -1, 0], "i32") },
    outputs: ({ logits, targets }) => ({ loss: softmaxCrossEntropy(logits, targets, { ignoreIndex: -1 }) }),
  }),
  opCase({
    op: "softmaxCrossEntropy",
    name: "large logits",
    inputs: {
      logits: given([3, 4], [100, -100, 0, 50, -80, -80.5, -81, -79, 96, 96, 96, 96]),
      targets: given([3], [1, 2, 3], "i32"),
    },
    outputs: ({ logits, targets }) => ({ loss: softmaxCrossEntropy(logits, targets, { reduction: "none" }) }),
  }),
  opCase({
    op: "softmaxCrossEntropy",
    name: "one class, one row, none",
    inputs: {
      one: uniform([3, 1]),
      row: uniform([4]),
      none: uniform([0, 4]),
      zeros: given([3], [0, 0, 0], "i32"),
      target: given([], [2], "i32"),
      nothing: index([0], 1),
    },
    outputs: ({ one, row, none, zeros, target, nothing }) => ({
      one: softmaxCrossEntropy(one, zeros),
      row: softmaxCrossEntropy(row, target),
      none: softmaxCrossEntropy(none, nothing),
    }),
  }),
  opCase({
    op: "softmaxCrossEntropy",
    name: "without the padding of the vocabulary",
    inputs: { logits: uniform([4, 8], -3, 3), targets: index([4], 5) },
    outputs: ({ logits, targets }) => ({ loss: softmaxCrossEntropy(logits.slice(1, 0, 5), targets) }),
  }),
  opCase({
    op: "softmaxCrossEntropy",
    name: "large",
    inputs: { logits: uniform([33, 1031], -4, 4), targets: index([33], 1031) },
    outputs: ({ logits, targets }) => ({ loss: softmaxCrossEntropy(logits, targets) }),
  }),
];

const linearEntropyCases = [
  ...(["mean", "sum", "none"] as const).map((reduction) =>
    opCase({
      op: "linearCrossEntropy",
      name: `${reduction}, in chunks, with ignored targets`,
      inputs: {
        ...{ hidden: uniform([7, 5], -2, 2), weight: uniform([9, 5]) },
        targets: given([7], [0, 8, -100, 3, -100, 1, 3], "i32"),
      },
      outputs: ({ hidden, weight, targets }) => ({
        loss: linearCrossEntropy(hidden, weight, targets, { reduction, chunkRows: 3 }),
      }),
    }),
  ),
  opCase({
    op: "linearCrossEntropy",
    name: "a batch of sequences, in one chunk, whose hidden values are a part of a packed tensor",
    inputs: {
      ...{ packed: uniform([2, 4, 9], -2, 2), weight: uniform([6, 5]) },
      targets: given([2, 4], [0, 1, 2, 3, 4, -1, -1, 5], "i32"),
    },
    outputs: ({ packed, weight, targets }) => {
      const [hidden, rest] = packed.split([5, 4]);
      return { loss: linearCrossEntropy(hidden, weight, targets, { ignoreIndex: -1 }), rest };
    },
  }),
  opCase({
    op: "linearCrossEntropy",
    name: "the weight is the embedding too, only one of both has a gradient, and no rows",
    inputs: {
      ...{ weight: uniform([6, 5]), fixed: constant(uniform([6, 5])), tokens: index([8], 6), targets: index([8], 6) },
      ...{ none: uniform([0, 5]), nothing: index([0], 6), rows: constant(uniform([8, 5])) },
    },
    outputs: ({ weight, fixed, tokens, targets, none, nothing, rows }) => {
      const hidden = weight.gather(tokens);
      return {
        tied: linearCrossEntropy(hidden, weight, targets, { chunkRows: 5 }).mul(3),
        hidden: linearCrossEntropy(hidden, fixed, targets),
        weight: linearCrossEntropy(rows, weight, targets),
        none: linearCrossEntropy(none, weight, nothing),
      };
    },
  }),
  opCase({
    op: "linearCrossEntropy",
    name: "large",
    inputs: { hidden: uniform([70, 64]), weight: uniform([515, 64]), targets: index([70], 515) },
    outputs: ({ hidden, weight, targets }) => ({
      loss: linearCrossEntropy(hidden, weight, targets, { chunkRows: 32 }),
    }),
  }),
];

export const normAndLossCases: readonly OpCase[] = [
  ...rmsCases,
  ...addCases,
  ...layerCases,
  ...entropyCases,
  ...linearEntropyCases,
];
