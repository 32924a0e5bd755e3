// Layer: conformance. Cases of the elementwise ops: every function, then every layout on a few of them.
// Knows the ops' calls. Knows no device by name.

import type { DType, Tensor } from "@diffmamba/tensor";
import { floatTypes } from "../compare.js";
import { type OpCase, opCase } from "./case.js";
import { away, constant, distinct, given, type InputSpec, mask, uniform, whole } from "./inputs.js";

const unaryFunctions = [
  "neg",
  "abs",
  "sign",
  "exp",
  "log",
  "sqrt",
  "rsqrt",
  "square",
  "reciprocal",
  "sigmoid",
  "tanh",
  "softplus",
  "silu",
  "erf",
] as const;

type UnaryName = (typeof unaryFunctions)[number];

/** Inputs where the function is defined and smooth. */
function domain(op: UnaryName, shape: readonly number[]): InputSpec {
  if (op === "log" || op === "sqrt" || op === "rsqrt") return uniform(shape, 0.1, 4);
  if (op === "abs" || op === "sign" || op === "reciprocal") return away(shape);
  return uniform(shape, -3, 3);
}

const unaryCases = unaryFunctions.flatMap((op): OpCase[] => [
  opCase({
    op,
    name: "odd sizes",
    inputs: { x: domain(op, [3, 7, 5]) },
    outputs: ({ x }) => ({ y: x[op]() }),
  }),
  opCase({
    op,
    name: "slice of a permuted view",
    inputs: { x: domain(op, [4, 6, 5]) },
    outputs: ({ x }) => ({ y: x.permute(2, 0, 1).slice(1, 1, 4)[op]() }),
  }),
]);

const extremes = [-100, -88, -30, -17, -1, -1e-3, 0, 1e-3, 1, 17, 30, 88, 100];

const layoutCases = [
  ...(["sigmoid", "tanh", "softplus", "silu", "erf"] as const).map((op) =>
    opCase({
      op,
      name: "far from 0",
      inputs: { x: given([extremes.length], extremes) },
      outputs: ({ x }) => ({ y: x[op]() }),
    }),
  ),
  opCase({ op: "exp", name: "a number", inputs: { x: uniform([]) }, outputs: ({ x }) => ({ y: x.exp() }) }),
  opCase({ op: "exp", name: "no elements", inputs: { x: uniform([3, 0, 2]) }, outputs: ({ x }) => ({ y: x.exp() }) }),
  opCase({
    op: "exp",
    name: "an expanded axis",
    inputs: { x: uniform([3, 1, 4]) },
    outputs: ({ x }) => ({ y: x.expand(2, 3, 5, 4).exp() }),
  }),
  opCase({
    op: "silu",
    name: "six axes, permuted",
    inputs: { x: uniform([2, 1, 3, 2, 3, 4]) },
    outputs: ({ x }) => ({ y: x.permute(5, 2, 0, 4, 1, 3).silu() }),
  }),
  opCase({
    op: "neg",
    name: "one column of many",
    inputs: { x: uniform([66, 9]) },
    outputs: ({ x }) => ({ y: x.slice(1, 7, 8).neg() }),
  }),
  opCase({ op: "silu", name: "large", inputs: { x: uniform([70_001], -4, 4) }, outputs: ({ x }) => ({ y: x.silu() }) }),
];

type BinaryName = "add" | "sub" | "mul" | "div" | "max" | "min" | "pow";

const call: Readonly<Record<BinaryName, (a: Tensor, b: Tensor | number) => Tensor>> = {
  add: (a, b) => a.add(b),
  sub: (a, b) => a.sub(b),
  mul: (a, b) => a.mul(b),
  div: (a, b) => a.div(b),
  max: (a, b) => a.maximum(b),
  min: (a, b) => a.minimum(b),
  pow: (a, b) => a.pow(b),
};

/** First and second operand: positive bases for pow, divisors away from 0. */
function operands(op: BinaryName, a: readonly number[], b: readonly number[]): { a: InputSpec; b: InputSpec } {
  if (op === "pow") return { a: uniform(a, 0.3, 2), b: uniform(b, -2, 2) };
  return { a: uniform(a, -2, 2), b: op === "div" ? away(b) : uniform(b, -2, 2) };
}

const binaryCases = (Object.keys(call) as BinaryName[]).flatMap((op): OpCase[] => [
  opCase({
    op,
    name: "one shape",
    inputs: operands(op, [3, 7, 5], [3, 7, 5]),
    outputs: ({ a, b }) => ({ y: call[op](a, b) }),
  }),
  opCase({
    op,
    name: "broadcast, both ways",
    inputs: operands(op, [4, 1, 5], [3, 1]),
    outputs: ({ a, b }) => ({ y: call[op](a, b), z: call[op](a.slice(0, 0, 1), b) }),
  }),
  opCase({
    op,
    name: "with a constant",
    inputs: { a: operands(op, [11], []).a },
    outputs: ({ a }) => ({ y: call[op](a, 1.5) }),
  }),
  opCase({
    op,
    name: "integers",
    dtypes: ["i32", "u8"],
    inputs: { a: whole([5, 3], 4, 12), b: whole([3], 1, op === "pow" ? 2 : 4) },
    outputs: ({ a, b }) => ({ y: call[op](a, b) }),
  }),
]);

const binaryLayouts = [
  opCase({
    op: "mul",
    name: "six axes, broadcast and permuted",
    inputs: { a: uniform([2, 3, 1, 2, 1, 3]), b: uniform([3, 2, 1, 4, 1]) },
    outputs: ({ a, b }) => ({ y: a.mul(b.permute(4, 2, 1, 3, 0)) }),
  }),
  opCase({
    op: "mul",
    name: "a tensor by itself",
    inputs: { x: uniform([13]) },
    outputs: ({ x }) => ({ y: x.mul(x).mul(x) }),
  }),
  opCase({
    op: "sub",
    name: "two views of one tensor",
    inputs: { x: uniform([6, 6]) },
    outputs: ({ x }) => ({
      y: x
        .slice(0, 1)
        .slice(1, 2)
        .sub(x.transpose().slice(0, 0, 5).slice(1, 0, 4)),
    }),
  }),
  opCase({
    op: "add",
    name: "no elements, broadcast",
    inputs: { a: uniform([2, 0]), b: uniform([1, 1]) },
    outputs: ({ a, b }) => ({ y: a.add(b) }),
  }),
  opCase({
    op: "add",
    name: "a bias on many rows",
    inputs: { a: uniform([257, 263]), b: uniform([263]) },
    outputs: ({ a, b }) => ({ y: a.add(b) }),
  }),
  opCase({
    op: "add",
    name: "in place, into a view",
    inputs: { a: constant(uniform([5, 6])), b: constant(uniform([5, 1])) },
    outputs: ({ a, b }) => {
      const y = a.clone();
      y.slice(1, 2, 5).addInPlace(b);
      return { y };
    },
  }),
  opCase({
    op: "max",
    name: "equal numbers: the gradient goes to the first",
    smooth: false,
    inputs: { a: given([4], [1, 2, -1, 0]), b: given([4], [1, 1, 3, 0]) },
    outputs: ({ a, b }) => ({ y: a.maximum(b) }),
  }),
  opCase({
    op: "min",
    name: "equal numbers: the gradient goes to the first",
    smooth: false,
    inputs: { a: given([4], [1, 2, -1, 0]), b: given([4], [1, 1, 3, 0]) },
    outputs: ({ a, b }) => ({ y: a.minimum(b) }),
  }),
];

const everyType: readonly DType[] = [...floatTypes, "i32", "u8"];

const compareCalls = {
  eq: (a: Tensor, b: Tensor | number) => a.equal(b),
  lt: (a: Tensor, b: Tensor | number) => a.less(b),
  le: (a: Tensor, b: Tensor | number) => a.lessEqual(b),
};

const compareCases = (["eq", "lt", "le"] as const).flatMap((op): OpCase[] => [
  opCase({
    op,
    name: "broadcast, with ties",
    dtypes: everyType,
    inputs: { a: whole([4, 1, 5], 0, 3), b: whole([3, 1], 0, 3) },
    outputs: ({ a, b }) => ({
      y: compareCalls[op](a, b),
      constant: compareCalls[op](a.transpose(0, 2), 2),
      parts: compareCalls[op](a.slice(0, 1), b.slice(0, 1)),
    }),
  }),
  opCase({
    op,
    name: "fractions",
    inputs: { a: constant(uniform([67])), b: constant(uniform([67])) },
    outputs: ({ a, b }) => ({ y: compareCalls[op](a, b), same: compareCalls[op](a, a) }),
  }),
]);

const whereCases = [
  opCase({
    op: "where",
    name: "one shape",
    inputs: { condition: mask([3, 7]), a: uniform([3, 7]), b: uniform([3, 7]) },
    outputs: ({ condition, a, b }) => ({ y: condition.where(a, b) }),
  }),
  opCase({
    op: "where",
    name: "broadcast and strided",
    inputs: { condition: mask([5, 1, 4]), a: uniform([3, 4]), b: uniform([4, 5]) },
    outputs: ({ condition, a, b }) => ({
      y: condition.where(a, b.slice(0, 2, 3).slice(1, 1, 2)),
      z: condition.permute(1, 2, 0).where(a.slice(0, 1, 2).transpose(), b),
      part: condition.slice(0, 2, 3).where(a.slice(0, 1, 2), b.slice(1, 4).transpose()),
    }),
  }),
  opCase({
    op: "where",
    name: "integers",
    dtypes: ["i32", "u8"],
    inputs: { condition: mask([9]), a: whole([9], 0, 200), b: whole([9], 0, 200) },
    outputs: ({ condition, a, b }) => ({ y: condition.where(a, b) }),
  }),
  opCase({
    op: "where",
    name: "the branch not taken may be infinite",
    inputs: { a: distinct([8]) },
    outputs: ({ a }) => {
      const positive = a.less(0).equal(a.device.zeros([], "u8"));
      return { y: positive.where(a.abs().sqrt(), a) };
    },
  }),
];

export const elementwiseCases: readonly OpCase[] = [
  ...unaryCases,
  ...layoutCases,
  ...binaryCases,
  ...binaryLayouts,
  ...compareCases,
  ...whereCases,
];
