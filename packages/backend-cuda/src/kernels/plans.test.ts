// How kernels' host sides cut their work, without a device: axes and vectors, segments, layouts of matrices.

import { contiguousStrides, type DType, type View } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { hopper } from "../device.testing.js";
import type { CudaBuffer } from "../memory.js";
import { axesArgument, mergeAxes, walkOf } from "./axes.js";
import { bitsOfValue } from "./elementwise.js";
import { matricesOf, rowsPlan, skinnyPlan, widePlan } from "./matmul.js";
import { segmentsFor } from "./reduce.js";
import { partBlocks, pitchOf, teamFor, vectorFor } from "./rows.js";

function view(shape: readonly number[], layout: Partial<View> = {}, dtype: DType = "f32"): View {
  const buffer = { address: 2 ** 30, bytes: 2 ** 30 } as CudaBuffer;
  return { buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0, ...layout };
}

describe("axes", () => {
  it("are one where all operands step through them as through one", () => {
    const [a, b] = [view([2, 3, 4]), view([2, 3, 4], { strides: [0, 4, 1] })];
    expect(mergeAxes([2, 3, 4], [a])).toEqual({ sizes: [24], strides: [[1]] });
    expect(mergeAxes([2, 3, 4], [a, b])).toEqual({
      sizes: [12, 2],
      strides: [
        [1, 12],
        [1, 0],
      ],
    });
    expect(mergeAxes([1, 1], [view([1, 1])])).toEqual({ sizes: [1], strides: [[0]] });
  });

  it("are walked in vectors where every operand is aligned, or repeats", () => {
    const out = view([6, 8]);
    expect(walkOf([out, view([6, 8])], 4)).toMatchObject({ width: 4, items: 12 });
    expect(walkOf([out, view([6, 8], { strides: [0, 0] })], 4)).toMatchObject({ width: 4, items: 12 });
    expect(walkOf([out, view([6, 8], { offset: 1 })], 4)).toMatchObject({ width: 1, items: 48 });
    expect(walkOf([out, view([6, 8], { strides: [9, 1] })], 4)).toMatchObject({ width: 1, items: 48 });
    expect(walkOf([out, view([6, 8], { strides: [12, 1] })], 4)).toEqual({
      axes: {
        sizes: [2, 6],
        strides: [
          [4, 8],
          [4, 12],
        ],
      },
      width: 4,
      items: 12,
    });
    expect(walkOf([view([6, 7])], 4)).toMatchObject({ width: 1, items: 42 });
  });

  it("fill the structure of six axes", () => {
    const argument = axesArgument({
      sizes: [5, 3],
      strides: [
        [1, 5],
        [0, 1],
      ],
    });
    expect(argument).toEqual({ kind: "ints", values: [2, 5, 3, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0] });
  });
});

describe("elements as bits", () => {
  it.each([
    [1, "f32", 0x3f800000],
    [1, "bf16", 0x3f80],
    [1, "f16", 0x3c00],
    [-2.7, "i32", -2],
    [-0, "f32", -(2 ** 31)],
  ] as const)("%d as %s", (value, dtype, bits) => expect(bitsOfValue(value, dtype)).toBe(bits));
});

describe("reductions", () => {
  it("are cut into segments where there are few outputs, by sizes alone", () => {
    expect(segmentsFor(1, 100)).toBe(1);
    expect(segmentsFor(1, 2 ** 20)).toBe(256);
    expect(segmentsFor(768, 16384)).toBe(6);
    expect(segmentsFor(50000, 2 ** 20)).toBe(1);
  });
});

describe("matrix products", () => {
  const product = (m: number, n: number, k: number, dtype: DType = "bf16", batch = 1) => ({
    a: matricesOf("a", view([batch, m, k], {}, dtype)),
    b: matricesOf("b", view([batch, k, n], { strides: [n * k, 1, k] }, dtype)),
    out: matricesOf("out", view([batch, m, n], {}, dtype)),
    m,
    n,
    k,
    batch,
    accumulate: false,
  });

  it("see which axis is contiguous", () => {
    expect(matricesOf("a", view([2, 3, 4]))).toMatchObject({ transposed: false, pitch: 4, step: 12 });
    expect(matricesOf("a", view([2, 3, 4], { strides: [12, 1, 3] }))).toMatchObject({ transposed: true, pitch: 3 });
    expect(matricesOf("a", view([1, 3, 4], { strides: [0, 11, 1] }))).toMatchObject({
      transposed: false,
      pitch: 11,
      step: 0,
    });
    expect(matricesOf("a", view([1, 1, 5], { strides: [0, 1, 7] }))).toMatchObject({ transposed: true, pitch: 7 });
    expect(() => matricesOf("a", view([1, 3, 4], { strides: [0, 8, 2] }))).toThrow(/matmul: a \(1, 3, 4\)/);
  });

  it("of few rows go by themselves where whole vectors can be read", () => {
    expect(skinnyPlan(product(1, 768, 1536))).toEqual({ rows: 1, columns: 1 });
    expect(skinnyPlan(product(1, 50288, 768))).toEqual({ rows: 1, columns: 2 });
    expect(skinnyPlan(product(3, 768, 1536))).toEqual({ rows: 4, columns: 2 });
    expect(skinnyPlan(product(8, 768, 1536, "f32"))).toEqual({ rows: 8, columns: 2 });
    expect(skinnyPlan(product(9, 768, 1536))).toBeUndefined();
    expect(skinnyPlan(product(1, 768, 1532))).toBeUndefined();
    expect(skinnyPlan(product(1, 768, 1536, "bf16", 2))).toBeUndefined();
  });

  it("of some rows are cut by rows and k, in 16 bits, and by elements where k is short", () => {
    const plan = (...sizes: Parameters<typeof product>) => rowsPlan(product(...sizes), hopper);
    expect(plan(8, 768, 1536)).toBeUndefined();
    // A third of the multiprocessors, and no two blocks to one.
    const half = hopper.sharedPerMultiprocessor / 2;
    expect(plan(9, 768, 1536)).toEqual({ tall: 1, split: 4, shared: half });
    expect(plan(64, 80, 1536)).toEqual({ tall: 4, split: 4, shared: half });
    expect(plan(64, 1024, 2048)).toEqual({ tall: 4, split: 4, shared: 4 * 96 * 128 * 2 });
    expect(plan(64, 1056, 544)).toEqual({ tall: 4, split: 4, shared: 2 * 96 * 128 * 2 });
    expect(plan(17, 3352, 768)).toEqual({ tall: 2, split: 1, shared: 4 * 64 * 128 * 2 });
    expect(plan(9, 3352, 768)).toEqual({ tall: 1, split: 1, shared: 4 * 48 * 128 * 2 });
    // As much as the sums want.
    expect(plan(17, 3352, 128)).toEqual({ tall: 2, split: 1, shared: 20480 });
    expect(plan(64, 1536, 48)).toBe("shallow");
    expect(plan(9, 1536, 64, "f32")).toBe("shallow");
    expect(plan(65, 768, 1536)).toBeUndefined();
    expect(plan(64, 4224, 768)).toMatchObject({ tall: 4, split: 1 });
    // Up to half as many blocks again as there are multiprocessors.
    expect(plan(64, 4384, 1024)).toMatchObject({ tall: 4, split: 1 });
    expect(plan(64, 6368, 1024)).toBeUndefined();
    expect(plan(64, 768, 1532)).toBeUndefined();
    expect(plan(64, 768, 1536, "f32")).toBeUndefined();
  });

  it("of some rows are not shared out over clusters, or crowded, where a device has no room for that", () => {
    const small = {
      multiprocessors: 132,
      computeCapability: 89,
      sharedPerMultiprocessor: 102400,
      sharedPerBlock: 101376,
    };
    expect(rowsPlan(product(64, 768, 1536), small)).toMatchObject({ split: 1 });
    expect(rowsPlan(product(64, 4224, 1024), small)).toMatchObject({ split: 1 });
    expect(rowsPlan(product(64, 4384, 1024), small)).toBeUndefined();
    expect(rowsPlan(product(64, 1024, 2048), { ...hopper, multiprocessors: 108 })).toMatchObject({ split: 1 });
    // With clusters, and little shared memory: what is sent to a block has no room beside four pieces.
    expect(rowsPlan(product(64, 768, 2048), { ...small, computeCapability: 120 })).toMatchObject({ split: 1 });
    expect(rowsPlan(product(64, 768, 1536), { ...small, computeCapability: 120 })).toMatchObject({ split: 4 });
  });

  it("of some rows and very many columns keep the rows, where they fit into shared memory", () => {
    expect(widePlan(product(64, 50288, 768), hopper)).toEqual({
      halves: 2,
      blocks: 132,
      shared: 64 * 768 * 2 + 5 * 128 * 64 * 2,
    });
    expect(widePlan(product(9, 33793, 72, "f16"), hopper)).toMatchObject({ halves: 1 });
    expect(widePlan(product(64, 50288, 1024), hopper)).toMatchObject({ shared: 212992 });
    expect(widePlan(product(64, 50288, 2048), hopper)).toBeUndefined();
    expect(widePlan(product(64, 33664, 768), hopper)).toBeUndefined();
    expect(widePlan(product(8, 50288, 768), hopper)).toBeUndefined();
    expect(widePlan(product(64, 50288, 768, "f32"), hopper)).toBeUndefined();
    expect(widePlan(product(64, 50288, 764), hopper)).toBeUndefined();
  });
});

describe("rows", () => {
  it("have one pitch, or are refused by name", () => {
    expect(pitchOf("x", view([4, 5], { strides: [9, 1] }))).toBe(9);
    expect(() => pitchOf("norm: x", view([4, 5], { strides: [1, 4] }))).toThrow(
      "cuda: norm: x (4, 5) has strides (1, 4)",
    );
  });

  it("are read in vectors where all of them allow it", () => {
    const wide = view([4, 16], { strides: [24, 1], offset: 8 }, "bf16");
    expect(vectorFor(8, 16, [wide, undefined, view([16], {}, "bf16")])).toBe(8);
    expect(vectorFor(8, 16, [{ ...wide, offset: 4 }])).toBe(1);
    expect(vectorFor(8, 12, [wide])).toBe(1);
    expect(vectorFor(8, 16, [view([4, 16], { strides: [20, 1] }, "bf16")])).toBe(1);
  });

  it("get a team of warps", () => {
    expect([teamFor(96, 4), teamFor(96, 2), teamFor(384, 2), teamFor(10000, 2)]).toEqual([32, 64, 256, 256]);
    expect([partBlocks(1, 32), partBlocks(16384, 32), partBlocks(100, 256)]).toEqual([1, 528, 50]);
  });
});
