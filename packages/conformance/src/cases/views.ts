// Layer: conformance. Cases of copies, fills and views.
// Knows the ops' calls. Knows no device by name.

import { concat, type DType, type Tensor } from "@diffmamba/tensor";
import { floatTypes } from "../compare.js";
import { type OpCase, opCase, type Tensors } from "./case.js";
import { constant, given, uniform, whole } from "./inputs.js";

const everyType: readonly DType[] = [...floatTypes, "i32", "u8"];

const copyCases = [
  opCase({
    op: "copy",
    name: "clone and contiguous, of views",
    inputs: { x: uniform([4, 3, 5]) },
    outputs: ({ x }) => ({
      a: x.clone(),
      b: x.permute(2, 0, 1).contiguous(),
      c: x.slice(1, 1, 2).contiguous(),
      d: x.slice(0, 0, 1).expand(3, 3, 5).contiguous(),
    }),
  }),
  opCase({
    op: "copy",
    name: "six axes",
    inputs: { x: uniform([2, 3, 2, 2, 3, 2]) },
    outputs: ({ x }) => ({ y: x.permute(5, 4, 3, 2, 1, 0).contiguous() }),
  }),
  opCase({
    op: "copy",
    name: "to the type of statistics and back",
    inputs: { x: uniform([5, 7]) },
    outputs: ({ x }, { statistic, dtype }) => ({ y: x.cast(statistic), z: x.transpose().cast(statistic).cast(dtype) }),
  }),
  opCase({
    op: "copy",
    name: "to bf16",
    dtypes: ["f32"],
    needs: ["bf16"],
    inputs: { x: constant(uniform([67], -3, 3)) },
    outputs: ({ x }) => ({ y: x.cast("f32").cast("bf16") }),
  }),
  opCase({
    op: "copy",
    name: "to f16",
    dtypes: ["f32"],
    needs: ["f16"],
    inputs: { x: constant(uniform([67], -3, 3)) },
    outputs: ({ x }) => ({ y: x.cast("f32").cast("f16") }),
  }),
  opCase({
    op: "copy",
    name: "to integers: the fraction is cut off",
    inputs: { x: constant(given([7], [-2.75, -1, -0.5, 0, 0.75, 1.5, 100])) },
    outputs: ({ x }) => ({ y: x.cast("i32"), bytes: x.abs().cast("u8") }),
  }),
  opCase({
    op: "copy",
    name: "from integers",
    dtypes: ["i32", "u8"],
    inputs: { x: whole([3, 5], 0, 255) },
    outputs: ({ x }) => ({ y: x.cast("f32"), z: x.transpose().cast("f32") }),
  }),
  opCase({
    op: "copy",
    name: "into a view, broadcast",
    dtypes: everyType,
    inputs: { x: whole([4, 5], 0, 9), row: whole([3], 10, 19) },
    outputs: ({ x, row }) => {
      const y = x.clone();
      y.slice(1, 1, 4).assign(row);
      return { y };
    },
  }),
  opCase({
    op: "copy",
    name: "large, transposed",
    inputs: { x: uniform([131, 67]) },
    outputs: ({ x }) => ({ y: x.transpose().contiguous() }),
  }),
];

const fillCases = [
  opCase({
    op: "fill",
    name: "new tensors, and a part of one",
    dtypes: everyType,
    inputs: { x: whole([4, 5], 0, 9) },
    outputs: ({ x }, { device, dtype }) => {
      const y = x.clone();
      y.slice(1, 1, 4).slice(0, 2).fillInPlace(7);
      return { y, full: device.full([3, 67], 5, dtype), zero: device.zeros([], dtype), none: device.ones([0], dtype) };
    },
  }),
];

const iotaCases = [
  opCase({
    op: "iota",
    name: "some, one, none, many",
    dtypes: ["i32"],
    inputs: {},
    outputs: (_, { device }) => ({
      some: device.arange(11),
      one: device.arange(1),
      none: device.arange(0),
      many: device.arange(70_001),
    }),
  }),
];

const integerViews = (
  [
    ["reshape", (x) => ({ y: x.reshape(6, 2), z: x.transpose().reshape(-1) })],
    ["permute", (x) => ({ y: x.permute(1, 0) })],
    ["slice", (x) => ({ y: x.slice(1, 1, 3), z: x.slice(0, 1, 3) })],
    ["split", (x) => Object.fromEntries(x.split([1, 2, 1]).map((part, i) => [`part${i}`, part]))],
    ["expand", (x) => ({ y: x.slice(0, 1, 2).expand(2, 5, 4) })],
    ["concat", (x) => ({ y: concat([x, x.slice(0, 0, 1)], 0), z: concat([x, x.slice(1, 1, 2)]) })],
  ] satisfies readonly (readonly [string, (x: Tensor) => Tensors])[]
).map(([op, view]) =>
  opCase({
    op,
    name: "integers",
    dtypes: ["i32", "u8"],
    inputs: { x: whole([3, 4], 0, 255) },
    outputs: ({ x }) => view(x),
  }),
);

const viewCases = [
  opCase({
    op: "reshape",
    name: "views and copies",
    inputs: { x: uniform([4, 6]) },
    outputs: ({ x }) => ({
      view: x.reshape(2, -1, 3).mul(2),
      copy: x.transpose().reshape(-1),
      part: x.slice(1, 0, 4).reshape(4, 2, 2),
      ones: x.reshape(1, 4, 1, 6, 1),
    }),
  }),
  opCase({
    op: "reshape",
    name: "no elements, and one",
    inputs: { none: uniform([2, 0]), one: uniform([1, 1]) },
    outputs: ({ none, one }) => ({ a: none.reshape(0, 5), b: one.reshape() }),
  }),
  opCase({
    op: "permute",
    name: "three axes, six axes, a transpose",
    inputs: { x: uniform([2, 3, 4]), wide: uniform([2, 1, 2, 3, 1, 2]) },
    outputs: ({ x, wide }) => ({ a: x.permute(2, 0, 1), b: wide.permute(3, 1, 5, 0, 4, 2), c: x.transpose(0, -1) }),
  }),
  opCase({
    op: "slice",
    name: "overlapping, empty, whole",
    inputs: { x: uniform([5, 6]) },
    outputs: ({ x }) => ({
      a: x.slice(0, 1, 4),
      b: x.slice(1, 2),
      c: x.slice(0, 2, 5).slice(1, 0, 3),
      empty: x.slice(0, 2, 2),
      whole: x.slice(-1, 0),
    }),
  }),
  opCase({
    op: "split",
    name: "uneven parts, one unused, one used twice",
    inputs: { x: uniform([3, 9]) },
    outputs: ({ x }) => {
      const [a, b, , d] = x.split([2, 3, 1, 3]);
      return { a: a.square(), b: b.mul(b).add(b), d: d.transpose().exp() };
    },
  }),
  opCase({
    op: "split",
    name: "another axis, parts of no size",
    inputs: { x: uniform([5, 4]) },
    outputs: ({ x }) => {
      const [a, none, b] = x.split([2, 0, 3], 0);
      return { a: a.exp(), none, b: b.silu() };
    },
  }),
  opCase({
    op: "split",
    name: "a part of a part",
    inputs: { x: uniform([2, 8]) },
    outputs: ({ x }) => {
      const [a, b] = x.split([6, 2]);
      const [c, d] = a.split([2, 4]);
      return { c: c.exp(), d: d.mul(3), b: b.neg(), whole: x.square() };
    },
  }),
  opCase({
    op: "expand",
    name: "axes of size 1 and new ones",
    inputs: { x: uniform([3, 1, 2]) },
    outputs: ({ x }) => ({ a: x.expand(3, 4, 2), b: x.expand(2, 3, 1, 2), c: x.expand(3, 1, 2) }),
  }),
  opCase({
    op: "concat",
    name: "both axes, with views and an empty one",
    inputs: { x: uniform([2, 3]), y: uniform([3, 2]), none: uniform([0, 3]) },
    outputs: ({ x, y, none }) => ({
      rows: concat([x, none, y.transpose()], 0),
      columns: concat([x, y.transpose().slice(1, 1, 2)]),
    }),
  }),
  opCase({
    op: "concat",
    name: "a tensor with itself",
    inputs: { x: uniform([2, 3]) },
    outputs: ({ x }) => ({ y: concat([x, x, x.mul(2)], 0) }),
  }),
  ...integerViews,
];

export const copyAndViewCases: readonly OpCase[] = [...copyCases, ...fillCases, ...iotaCases, ...viewCases];
