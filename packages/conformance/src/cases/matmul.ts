// Layer: conformance. Cases of the matrix products, in every layout that they take without a copy and some that they do not.
// Knows the ops' calls. Knows no device by name.

import { linear } from "@diffmamba/tensor";
import { type OpCase, opCase } from "./case.js";
import { uniform } from "./inputs.js";

function plain(name: string, a: readonly number[], b: readonly number[]): OpCase {
  return opCase({
    op: "matmul",
    name,
    inputs: { a: uniform(a), b: uniform(b) },
    outputs: ({ a, b }) => ({ y: a.matmul(b) }),
  });
}

const matmulCases = [
  plain("small", [5, 7], [7, 3]),
  plain("one row", [1, 7], [7, 5]),
  plain("one column", [5, 7], [7, 1]),
  plain("outer product", [5, 1], [1, 4]),
  plain("batches", [3, 4, 5], [3, 5, 2]),
  plain("one matrix for all batches", [2, 3, 4, 5], [5, 3]),
  plain("batches that broadcast", [2, 1, 3, 4], [3, 4, 2]),
  plain("no rows, no columns", [0, 4], [4, 0]),
  plain("a sum of nothing is 0", [3, 0], [0, 2]),
  plain("tiles and a rest", [65, 130], [130, 67]),
  plain("larger tiles and a rest", [129, 257], [257, 66]),
  plain("many small batches", [70, 3, 9], [70, 9, 5]),
  opCase({
    op: "matmul",
    name: "transposed operands",
    inputs: { a: uniform([7, 5]), b: uniform([3, 7]) },
    outputs: ({ a, b }) => ({
      left: a.transpose().matmul(b.transpose().contiguous()),
      right: a.transpose().contiguous().matmul(b.transpose()),
      both: a.transpose().matmul(b.transpose()),
    }),
  }),
  opCase({
    op: "matmul",
    name: "columns of wider matrices",
    inputs: { a: uniform([6, 11]), b: uniform([4, 9]) },
    outputs: ({ a, b }) => ({ y: a.slice(1, 3, 7).matmul(b.slice(1, 2, 8)) }),
  }),
  opCase({
    op: "matmul",
    name: "batches in another order",
    inputs: { a: uniform([4, 3, 5]), b: uniform([5, 3, 2]) },
    outputs: ({ a, b }) => ({ y: a.permute(1, 0, 2).matmul(b.permute(1, 0, 2)) }),
  }),
  opCase({
    op: "matmul",
    name: "a matrix by its own transpose",
    inputs: { a: uniform([5, 4]) },
    outputs: ({ a }) => ({ y: a.matmul(a.transpose()) }),
  }),
  opCase({
    op: "matmul",
    name: "a layout that must be copied",
    inputs: { a: uniform([3, 4, 2]), b: uniform([4, 3]) },
    outputs: ({ a, b }) => ({
      y: a.permute(2, 0, 1).slice(0, 0, 1).matmul(b),
      z: a.slice(2, 1, 2).reshape(3, 4).matmul(b),
    }),
  }),
];

const linearCases = [
  opCase({
    op: "linear",
    name: "a batch of sequences",
    inputs: { x: uniform([2, 3, 8]), weight: uniform([5, 8]) },
    outputs: ({ x, weight }) => ({ y: linear(x, weight) }),
  }),
  opCase({
    op: "linear",
    name: "one row, one output",
    // At 7 the products nearly cancel, and f32 cannot hold the sum to the tolerance.
    inputs: { x: uniform([1, 12]), weight: uniform([1, 12]) },
    outputs: ({ x, weight }) => ({ y: linear(x, weight) }),
  }),
  opCase({
    op: "linear",
    name: "a part of a packed projection",
    inputs: { packed: uniform([2, 3, 11]), weight: uniform([5, 4]) },
    outputs: ({ packed, weight }) => {
      const [a, b, c] = packed.split([3, 4, 4]);
      return { y: linear(b, weight), z: linear(c, weight), rest: a };
    },
  }),
  opCase({
    op: "linear",
    name: "strided inputs",
    inputs: { x: uniform([8, 3, 2]), weight: uniform([8, 5]) },
    outputs: ({ x, weight }) => ({ y: linear(x.permute(2, 1, 0), weight.transpose()) }),
  }),
  opCase({
    op: "linear",
    name: "many rows, with a bias",
    inputs: { x: uniform([130, 64]), weight: uniform([72, 64]), bias: uniform([72]) },
    outputs: ({ x, weight, bias }) => ({ y: linear(x, weight, bias) }),
  }),
  opCase({
    op: "linear",
    name: "with a bias",
    inputs: { x: uniform([2, 9, 8]), weight: uniform([16, 8]), bias: uniform([16]) },
    outputs: ({ x, weight, bias }) => ({ y: linear(x, weight, bias) }),
  }),
  opCase({
    op: "linear",
    name: "one row, a bias that is part of another tensor",
    inputs: { x: uniform([1, 8]), weight: uniform([3, 8]), biases: uniform([3, 2]) },
    outputs: ({ x, weight, biases }) => ({ y: linear(x, weight, biases.slice(1, 1).reshape(3)) }),
  }),
  opCase({
    op: "linear",
    name: "a weight used twice",
    inputs: { x: uniform([4, 6]), weight: uniform([6, 6]) },
    outputs: ({ x, weight }) => ({ y: linear(linear(x, weight), weight) }),
  }),
  opCase({
    op: "linear",
    name: "no rows",
    inputs: { x: uniform([0, 6]), weight: uniform([3, 6]) },
    outputs: ({ x, weight }) => ({ y: linear(x, weight) }),
  }),
  opCase({
    op: "linear",
    name: "large",
    inputs: { x: uniform([2, 65, 96]), weight: uniform([131, 96]) },
    outputs: ({ x, weight }) => ({ y: linear(x, weight) }),
  }),
];

export const productCases: readonly OpCase[] = [...matmulCases, ...linearCases];
