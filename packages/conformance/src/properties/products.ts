// Layer: conformance. Matrix products of sizes for which backends have kernels of their own: the large ones of training, and those of a
// token of many rows. What they give is what products of parts give, which other kernels make.
// Knows the product's call. Knows no device by name, and no backend's kernels.

import { RandomStream } from "@diffmamba/random";
import { concat, linear, linearInto, scope, type Tensor } from "@diffmamba/tensor";
import { takeAll } from "../cases/case.js";
import { constant, uniform } from "../cases/inputs.js";
import { compareValues, decode, tolerances } from "../compare.js";
import { equality, type Property } from "./property.js";

/** Large enough along each axis for any way to compute large products; half of it is not. */
const [ROWS, DEPTH, COLUMNS] = [512, 1024, 512];

/** Its gradients have the two other layouts of operands. */
const large = equality({
  name: `a product of ${ROWS} x ${DEPTH} x ${COLUMNS} = the sum of its halves along k`,
  dtypes: ["f32"],
  inputs: { a: uniform([ROWS, DEPTH]), b: uniform([DEPTH, COLUMNS]) },
  ways: {
    halves: ({ a, b }) => {
      const half = (first: number): Tensor => {
        return a.slice(1, first, first + DEPTH / 2).matmul(b.slice(0, first, first + DEPTH / 2));
      };
      return { y: half(0).add(half(DEPTH / 2)) };
    },
    whole: ({ a, b }) => ({ y: a.matmul(b) }),
  },
});

/** A token's projection: many columns, more than that, a deep one of few, and a short one. */
const projections = [
  [40, 520, 2056],
  [40, 72, 4384],
  [33, 1024, 96],
  [11, 48, 80],
] as const;

/** Logits of a vocabulary, in types of 16 bits. */
const vocabularies = [
  [40, 72, 33_800],
  [11, 136, 33_801],
] as const;

const sizes = [
  ...projections.map((size) => [...size, ["f32", "bf16", "f16"]] as const),
  ...vocabularies.map((size) => [...size, ["bf16", "f16"]] as const),
];

const ofRows = sizes.map(([rows, depth, columns, dtypes]) =>
  equality({
    name: `linear from ${depth} to ${columns} of ${rows} rows = of eight at a time`,
    dtypes,
    inputs: { x: constant(uniform([rows, depth])), weight: constant(uniform([columns, depth])) },
    ways: {
      eights: ({ x, weight }) => {
        const firsts = Array.from({ length: Math.ceil(rows / 8) }, (_, i) => 8 * i);
        return {
          y: concat(
            firsts.map((first) => linear(x.slice(0, first, Math.min(first + 8, rows)), weight)),
            0,
          ),
        };
      },
      together: ({ x, weight }) => ({ y: linear(x, weight) }),
    },
  }),
);

/** Logits, which tokens are drawn from: what is rounded to 16 bits on the way would make near ones equal. */
const sums = [[11, 72, 40] as const, ...vocabularies].map(
  ([rows, depth, columns]): Property => ({
    name: `linearInto of ${rows} rows of numbers of 16 bits, from ${depth} to ${columns} = the product of the same numbers in f32`,
    dtypes: ["bf16", "f16"],
    run: async (device, dtype) => {
      const random = new RandomStream(1, "linearInto");
      const draw = (shape: readonly number[]) => {
        const values = random.uniform(new Float64Array(shape.reduce((a, b) => a * b)), -1, 1);
        return device.from(values, shape).cast(dtype);
      };
      const made = scope(() => {
        const [x, weight] = [draw([rows, depth]), draw([columns, depth])];
        const out = device.zeros([rows, columns]);
        linearInto(x, weight, out);
        return { out, exact: linear(x.cast("f32"), weight.cast("f32")) };
      });
      const { out, exact } = await takeAll(made);
      return [compareValues("out", decode(out), decode(exact), tolerances.equal.f32.forward)];
    },
  }),
);

export const productProperties: readonly Property[] = [large, ...ofRows, ...sums];
