// Layer: conformance. Cases of the reductions: sum, max, argmax, cumsum.
// Knows the ops' calls. Knows no device by name.

import { type OpCase, opCase } from "./case.js";
import { constant, distinct, given, uniform, whole } from "./inputs.js";

const sumCases = [
  opCase({ op: "sum", name: "all axes", inputs: { x: uniform([3, 7, 5]) }, outputs: ({ x }) => ({ y: x.sum() }) }),
  opCase({
    op: "sum",
    name: "each axis, and two",
    inputs: { x: uniform([3, 7, 5]) },
    outputs: ({ x }) => ({ a: x.sum(0), b: x.sum(1), c: x.sum(-1), d: x.sum([0, 2]), e: x.sum([0, 1], true) }),
  }),
  opCase({
    op: "sum",
    name: "of views",
    inputs: { x: uniform([4, 6, 5]) },
    outputs: ({ x }) => {
      const view = x.permute(2, 0, 1).slice(2, 1, 5);
      return { a: view.sum(0), b: view.sum([1, 2]), c: x.slice(0, 1, 2).expand(3, 6, 5).sum(0) };
    },
  }),
  opCase({
    op: "sum",
    name: "six axes",
    inputs: { x: uniform([2, 3, 2, 1, 3, 2]) },
    outputs: ({ x }) => ({ y: x.permute(3, 5, 1, 0, 2, 4).sum([1, 3, 5]) }),
  }),
  opCase({
    op: "sum",
    name: "no elements, no axes, axes of size 1",
    inputs: { x: uniform([3, 0, 2]), one: uniform([1, 4, 1]) },
    outputs: ({ x, one }) => ({ a: x.sum(1), b: x.sum(), c: one.sum([]), d: one.sum([0, 2]) }),
  }),
  opCase({
    op: "sum",
    name: "mean",
    inputs: { x: uniform([4, 9]) },
    outputs: ({ x }) => ({ a: x.mean(), b: x.mean(0), c: x.mean(1, true) }),
  }),
  opCase({
    op: "sum",
    name: "many of one sign",
    inputs: { x: uniform([100_003], 0, 1) },
    outputs: ({ x }) => ({ y: x.sum() }),
  }),
  opCase({
    op: "sum",
    name: "long columns and long rows",
    inputs: { x: uniform([1030, 37], 0, 1) },
    outputs: ({ x }) => ({ columns: x.sum(0), rows: x.sum(1) }),
  }),
  opCase({
    op: "sum",
    name: "integers",
    dtypes: ["i32"],
    inputs: { x: whole([5, 70], -1000, 1000) },
    outputs: ({ x }) => ({ a: x.sum(), b: x.sum(0) }),
  }),
  opCase({
    op: "sum",
    name: "bytes",
    dtypes: ["u8"],
    inputs: { x: whole([5, 7], 0, 7) },
    outputs: ({ x }) => ({ a: x.sum(), b: x.sum(0) }),
  }),
];

const maxCases = [
  opCase({
    op: "reduceMax",
    name: "all axes, each axis, and two",
    inputs: { x: distinct([3, 7, 5]) },
    outputs: ({ x }) => ({ a: x.max(), b: x.max(0), c: x.max(1, true), d: x.max(-1), e: x.max([0, 2]) }),
  }),
  opCase({
    op: "reduceMax",
    name: "of views",
    inputs: { x: distinct([4, 6, 5]) },
    outputs: ({ x }) => ({ a: x.permute(2, 0, 1).slice(2, 1, 5).max(0), b: x.slice(2, 4).max([1, 2]) }),
  }),
  opCase({
    op: "reduceMax",
    name: "equal numbers: the gradient goes to all of them",
    smooth: false,
    inputs: { x: given([2, 4], [1, 3, 3, -2, 0, 0, 0, 0]) },
    outputs: ({ x }) => ({ y: x.max(1) }),
  }),
  opCase({
    op: "reduceMax",
    name: "all negative, long",
    inputs: { x: constant(uniform([3, 2051], -9, -1)) },
    outputs: ({ x }) => ({ a: x.max(1), b: x.max() }),
  }),
  opCase({
    op: "reduceMax",
    name: "integers",
    dtypes: ["i32", "u8"],
    inputs: { x: whole([5, 7], 0, 255) },
    outputs: ({ x }) => ({ a: x.max(), b: x.max(0) }),
  }),
];

const argmaxCases = [
  opCase({
    op: "argmax",
    name: "rows of a view",
    inputs: { x: constant(distinct([3, 7, 5])) },
    outputs: ({ x }) => ({
      a: x.argmax(),
      b: x.permute(2, 0, 1).argmax(),
      c: x.slice(2, 3, 4).argmax(),
      d: x.slice(1, 2, 6).argmax(),
    }),
  }),
  opCase({
    op: "argmax",
    name: "ties: the first",
    dtypes: ["f64", "f32", "bf16", "f16", "i32", "u8"],
    inputs: { x: whole([8, 50], 0, 3) },
    outputs: ({ x }) => ({ y: x.argmax() }),
  }),
  opCase({
    op: "argmax",
    name: "a vocabulary",
    inputs: { x: constant(uniform([2, 50_281], -5, 5)) },
    dtypes: ["f64", "f32"],
    outputs: ({ x }) => ({ y: x.argmax() }),
  }),
];

const cumsumCases = [
  opCase({
    op: "cumsum",
    name: "each axis, both ways",
    inputs: { x: uniform([3, 7, 5]) },
    outputs: ({ x }) => ({ a: x.cumsum(), b: x.cumsum(0), c: x.cumsum(1, true), d: x.cumsum(-1, true) }),
  }),
  opCase({
    op: "cumsum",
    name: "of a view",
    inputs: { x: uniform([4, 6, 5]) },
    outputs: ({ x }) => ({ y: x.permute(2, 0, 1).slice(1, 1, 4).cumsum(2) }),
  }),
  opCase({
    op: "cumsum",
    name: "one element, and none",
    inputs: { one: uniform([3, 1]), none: uniform([2, 0]) },
    outputs: ({ one, none }) => ({ a: one.cumsum(), b: none.cumsum() }),
  }),
  opCase({ op: "cumsum", name: "long", inputs: { x: uniform([3, 1030]) }, outputs: ({ x }) => ({ y: x.cumsum() }) }),
];

export const reduceCases: readonly OpCase[] = [...sumCases, ...maxCases, ...argmaxCases, ...cumsumCases];
