// Layer: conformance. Cases of drawing tokens from logits: greedy, by the whole distribution, and by each filter.
// The logits are such that no running sum comes near the drawn number in any type: tokens are compared exactly.
// Knows the op's call. Knows no device by name.

import { sample } from "@diffmamba/tensor";
import { type OpCase, opCase } from "./case.js";
import { constant, distinct, given, type InputSpec, uniform, whole } from "./inputs.js";

const keys = (rows: number): InputSpec => ({ ...whole([rows, 2], -(2 ** 31), 2 ** 31 - 1), type: "i32" });
const positions = (rows: number): InputSpec => ({ ...whole([rows], 0, 5000), type: "i32" });

interface Options {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
}

/** Eight classes whose logits are multiples of 1/4: the same numbers in every type. */
const coarse = (rows: number): InputSpec => ({
  ...constant(whole([rows, 8], -8, 8)),
  draw: (stream, size) => stream.uniform(new Float64Array(size), -8, 9).map((x) => Math.floor(x) / 4),
});

function drawCase(name: string, options: Options): OpCase {
  return opCase({
    op: "sample",
    name,
    inputs: { logits: coarse(64), keys: keys(64), positions: positions(64) },
    outputs: ({ logits, keys, positions }) => sample(logits, keys, positions, options),
  });
}

const nothing = [Number.NaN, 1, 2, 0, Number.POSITIVE_INFINITY, 1, ...new Array(3).fill(Number.NEGATIVE_INFINITY)];

export const sampleCases: readonly OpCase[] = [
  drawCase("from all tokens", {}),
  drawCase("cooler", { temperature: 0.5 }),
  drawCase("hotter", { temperature: 2 }),
  drawCase("top-k", { topK: 3 }),
  drawCase("top-k of more than there are", { topK: 20 }),
  drawCase("top-p", { topP: 0.7 }),
  drawCase("a top-p that leaves one", { topP: 1e-6 }),
  drawCase("min-p", { minP: 0.3 }),
  drawCase("all filters", { temperature: 1.5, topK: 5, topP: 0.8, minP: 0.1 }),
  opCase({
    op: "sample",
    name: "greedy",
    inputs: { logits: constant(distinct([5, 40])), keys: keys(5), positions: positions(5) },
    outputs: ({ logits, keys, positions }) => sample(logits, keys, positions, { temperature: 0, topK: 1 }),
  }),
  opCase({
    op: "sample",
    name: "greedy takes the first of equal logits, and never one of -Infinity",
    inputs: {
      logits: constant(given([2, 4], [1, 3, 3, 2, Number.NEGATIVE_INFINITY, -5, Number.NEGATIVE_INFINITY, -7])),
      keys: keys(2),
      positions: positions(2),
    },
    outputs: ({ logits, keys, positions }) => {
      const warm = sample(logits, keys, positions, { minP: 0.9 });
      return { ...sample(logits, keys, positions, { temperature: 0 }), warm: warm.tokens };
    },
  }),
  opCase({
    op: "sample",
    name: "rows that nothing can be drawn from",
    inputs: { logits: constant(given([3, 3], nothing)), keys: keys(3), positions: positions(3) },
    outputs: ({ logits, keys, positions }) => ({ tokens: sample(logits, keys, positions).tokens }),
  }),
  opCase({
    op: "sample",
    name: "a large vocabulary, one token far above the rest",
    inputs: {
      logits: constant(uniform([3, 5003])),
      keys: keys(3),
      positions: positions(3),
      at: given([3], [17, 4096, 5002], "i32"),
    },
    outputs: ({ logits, keys, positions, at }) => {
      const column = logits.device.arange(5003).expand(3, 5003);
      const isAt = column.equal(at.reshape(3, 1).expand(3, 5003));
      const peaked = isAt.where(logits.device.full([], 40, logits.dtype), logits);
      return sample(peaked, keys, positions, { topP: 0.9, topK: 50 });
    },
  }),
  opCase({
    op: "sample",
    name: "no rows, and a part of a padded vocabulary",
    inputs: {
      ...{ none: constant(uniform([0, 4])), logits: constant(distinct([4, 9])) },
      ...{ noKeys: keys(0), noPositions: positions(0), keys: keys(4), positions: positions(4) },
    },
    outputs: ({ none, noKeys, noPositions, logits, keys, positions }) => ({
      none: sample(none, noKeys, noPositions).tokens,
      part: sample(logits.slice(1, 0, 5), keys, positions, { temperature: 0 }).tokens,
    }),
  }),
];
