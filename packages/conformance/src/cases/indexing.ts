// Layer: conformance. Cases of the lookups by index and of the random ops.
// Knows the ops' calls. Knows no device by name.

import { dropout, randomBits, randomMask, scatterAdd } from "@diffmamba/tensor";
import { floatTypes } from "../compare.js";
import { type OpCase, opCase } from "./case.js";
import { given, index, uniform, whole } from "./inputs.js";

const gatherCases = [
  opCase({
    op: "gather",
    name: "rows, some twice, some never",
    inputs: { table: uniform([7, 5]), at: given([6], [3, 0, 3, 6, 1, 3], "i32") },
    outputs: ({ table, at }) => ({ y: table.gather(at) }),
  }),
  opCase({
    op: "gather",
    name: "indices of two axes, transposed",
    inputs: { table: uniform([9, 3]), at: index([4, 5], 9) },
    outputs: ({ table, at }) => ({ y: table.gather(at.transpose()) }),
  }),
  opCase({
    op: "gather",
    name: "a transposed table, a single index, none",
    inputs: { table: uniform([3, 6]), one: given([], [4], "i32"), none: index([0], 1) },
    outputs: ({ table, one, none }) => ({ y: table.transpose().gather(one), z: table.gather(none) }),
  }),
  opCase({
    op: "gather",
    name: "an embedding",
    inputs: { table: uniform([260, 48]), at: index([3, 129], 260) },
    outputs: ({ table, at }) => ({ y: table.gather(at) }),
  }),
  opCase({
    op: "gather",
    name: "integers",
    dtypes: ["i32", "u8"],
    inputs: { table: whole([5, 3], 0, 255), at: index([8], 5) },
    outputs: ({ table, at }) => ({ y: table.gather(at) }),
  }),
];

const scatterCases = [
  opCase({
    op: "scatterAdd",
    name: "rows, some twice, some never",
    inputs: { source: uniform([6, 5]), at: given([6], [3, 0, 3, 6, 1, 3], "i32") },
    outputs: ({ source, at }) => ({ y: scatterAdd(8, at, source) }),
  }),
  opCase({
    op: "scatterAdd",
    name: "a strided source",
    inputs: { source: uniform([5, 9]), at: index([9], 4) },
    outputs: ({ source, at }) => ({ y: scatterAdd(4, at, source.transpose().slice(1, 1, 4)) }),
  }),
  opCase({
    op: "scatterAdd",
    name: "no rows",
    inputs: { source: uniform([0, 3]), at: index([0], 1) },
    outputs: ({ source, at }) => ({ y: scatterAdd(2, at, source) }),
  }),
  opCase({
    op: "scatterAdd",
    name: "many rows into few",
    inputs: { source: uniform([1000, 17]), at: index([1000], 3) },
    outputs: ({ source, at }) => ({ y: scatterAdd(3, at, source) }),
  }),
];

const randomCases = [
  opCase({
    op: "random",
    name: "words",
    dtypes: ["i32"],
    inputs: { step: given([], [0], "i32"), later: given([1], [123_456_789], "i32") },
    outputs: ({ step, later }, { device }) => ({
      first: randomBits(device, [7, 11], { seed: 1, stream: "a", step }),
      later: randomBits(device, [77], { seed: 1, stream: "a", step: later }),
      stream: randomBits(device, [77], { seed: 1, stream: "b", step }),
      seed: randomBits(device, [77], { seed: 2 ** 40 + 1, stream: "a", step }),
      none: randomBits(device, [0], { seed: 1, stream: "a", step }),
    }),
  }),
  opCase({
    op: "random",
    name: "masks",
    dtypes: ["u8"],
    inputs: { step: given([], [7], "i32") },
    outputs: ({ step }) => ({
      half: randomMask([5, 1001], 0.5, { seed: 3, stream: "mask", step }),
      most: randomMask([1001], 0.9, { seed: 3, stream: "mask", step }),
      all: randomMask([65], 1, { seed: 3, stream: "mask", step }),
      none: randomMask([65], 0, { seed: 3, stream: "mask", step }),
    }),
  }),
  opCase({
    op: "random",
    name: "dropout",
    dtypes: floatTypes,
    inputs: { x: uniform([6, 7]), step: given([], [5], "i32") },
    outputs: ({ x, step }) => ({
      y: dropout(x, 0.25, { seed: 4, stream: "dropout", step }),
      all: dropout(x, 0, { seed: 4, stream: "dropout", step }),
      view: dropout(x.transpose(), 0.5, { seed: 4, stream: "dropout", step }),
    }),
  }),
];

export const indexingCases: readonly OpCase[] = [...gatherCases, ...scatterCases, ...randomCases];
