// Layer: tests of the reference backend. What routines refuse to read, and where sequences begin and end.

import { describe, expect, it } from "vitest";
import { BackendError, DTypeError, ShapeError } from "../errors.js";
import type { View } from "../view.js";
import { place, placeInts } from "./checks.testing.js";
import { routines } from "./routines.js";
import { Rows, rowLengths, sequenceStarts, silu, siluGradient, softplus, toDoubles } from "./views.js";

describe("views", () => {
  const x = place([2, 3], Float64Array.of(1, 2, 3, 4, 5, 6), { inner: 1, gap: 2 });

  it("reads and writes rows of a wider buffer", () => {
    const rows = new Rows("x", x, 1);
    expect([rows.count, rows.width, rows.pitch]).toEqual([2, 3, 5]);
    const into = new Float64Array(4);
    rows.load(1, into, 1, 2);
    expect([...into]).toEqual([0, 0, 5, 6]);
  });

  it("refuses layouts, types and memory that it cannot read", () => {
    expect(() => toDoubles("weight", x)).toThrow(ShapeError);
    expect(() => toDoubles("weight", x)).toThrow("weight (2, 3) has strides (5, 1); it must be contiguous");
    const transposed: View = { ...x, shape: [3, 2], strides: [1, 5] };
    expect(() => new Rows("x", transposed, 1)).toThrow("x (3, 2) has strides (1, 5)");
    expect(() => toDoubles("weight", { ...place([2]), dtype: "bf16" })).toThrow(DTypeError);
    expect(() => toDoubles("weight", { ...place([2]), buffer: { bytes: 16 } })).toThrow(BackendError);
    const logits = place([1, 2], Float64Array.of(1, 2));
    const outputs = { losses: place([1]), logSumExp: place([1]) };
    const call = () => routines.softmaxCrossEntropy({ logits, targets: place([1]) }, outputs, { ignoreIndex: -100 });
    expect(call).toThrow("targets must be i32, got f64");
  });

  it("finds where sequences begin and rows end", () => {
    const seqIdx = placeInts([2, 4], [0, 0, 1, 3, 3, 3, 3, 4]);
    expect([...sequenceStarts(seqIdx, 2, 4)]).toEqual([0, 0, 2, 3, 0, 0, 0, 3]);
    expect([...sequenceStarts(undefined, 1, 3)]).toEqual([0, 0, 0]);
    expect([...rowLengths(placeInts([3], [-1, 2, 9]), 3, 4)]).toEqual([0, 2, 4]);
    expect([...rowLengths(undefined, 2, 4)]).toEqual([4, 4]);
  });

  it("keeps elementary functions finite far out", () => {
    expect([softplus(-1000), softplus(1000)]).toEqual([0, 1000]);
    expect(softplus(0)).toBeCloseTo(Math.LN2, 15);
    expect([silu(1000), siluGradient(1000), Math.abs(silu(-1000)), Math.abs(siluGradient(-1000))]).toEqual([
      1000, 1, 0, 0,
    ]);
  });
});
