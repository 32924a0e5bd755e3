// The cross-entropy: rows as long as a large vocabulary, infinite logits, and targets that are no class.

import { softmaxCrossEntropy, valueAndGrad } from "@diffmamba/tensor";
import { expect, it } from "vitest";
import { describeWithDevice } from "./device.testing.js";
import { expectLikeReference, numbers, whole } from "./routines.testing.js";

const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;

describeWithDevice("softmaxCrossEntropy on WebGPU", (device) => {
  for (const classes of [50288, 50277, 4096, 4, 1]) {
    it(`${classes} classes`, () =>
      expectLikeReference(device(), {
        inputs: { logits: numbers([3, classes], -9, 9) },
        constants: { targets: whole([3], [0, classes - 1, classes >> 1]) },
        compute: ({ logits, targets }) => ({ losses: softmaxCrossEntropy(logits, targets, { reduction: "none" }) }),
      }));
  }

  it("takes infinite logits, and NaN, as the reference does", () => {
    const rows = [
      [-infinity, 1, 2, -infinity, 0],
      [-infinity, -infinity, 0.5, -infinity, -infinity],
      [-infinity, -infinity, -infinity, -infinity, -infinity],
      [infinity, 1, 2, 3, 4],
      [0, nan, 2, 3, 4],
      [3e38, -3e38, 1, 2, 3],
      [-3e38, -3e38, -3e38, -3e38, -3e38],
      [0, 0, 0, 0, 0],
    ];
    const targets = [2, 2, 0, 1, 0, 0, 4, -100];
    // With five classes the rows are read one by one; with the eight of the second, in fours.
    const wide = rows.map((row) => [...row, -infinity, -infinity, -infinity]);
    return expectLikeReference(device(), {
      inputs: { five: { shape: [8, 5], data: rows.flat() }, eight: { shape: [8, 8], data: wide.flat() } },
      constants: { targets: whole([8], targets) },
      compute: ({ five, eight, targets }) => ({
        five: softmaxCrossEntropy(five, targets, { reduction: "none" }),
        eight: softmaxCrossEntropy(eight, targets, { reduction: "none" }),
      }),
    });
  });

  it("gives NaN for targets that are no class, in their own rows alone", async () => {
    using logits = device().from(numbers([5, 8]).data as Float32Array, [5, 8]);
    using targets = device().from([0, 8, -1, -100, 7], [5], "i32");
    using losses = softmaxCrossEntropy(logits, targets, { reduction: "none" });
    expect(Array.from(await losses.data(), Number.isNaN)).toEqual([false, true, true, false, false]);
    expect((await losses.data())[3]).toBe(0);
    const { value, gradients } = valueAndGrad(
      () => softmaxCrossEntropy(logits, targets, { reduction: "sum" }),
      [logits],
    );
    const slopes = await gradients[0].data();
    const spoilt = Array.from({ length: 5 }, (_, row) =>
      Array.from(slopes.slice(8 * row, 8 * row + 8)).every(Number.isNaN),
    );
    expect(spoilt).toEqual([false, true, true, false, false]);
    expect(Array.from(slopes.slice(24, 32))).toEqual(new Array(8).fill(0));
    value.dispose();
    gradients[0].dispose();
  });
});
