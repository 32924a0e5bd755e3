// How rows are shared out over threads, and when they may be read in fours.

import { BackendError, contiguousStrides, type View } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import type { KernelContext } from "../context.js";
import { blocksFor, joiningConstants, rowUses, teamFor } from "./rows.js";

function view(shape: readonly number[], { strides = contiguousStrides(shape), offset = 0 } = {}): View {
  return { buffer: { bytes: 0 }, dtype: "f32", shape, strides, offset };
}

function contextWith(limits: Partial<KernelContext["limits"]>): KernelContext {
  return { limits } as KernelContext;
}

describe("teamFor", () => {
  it.each([1, 2, 3, 7, 31, 32, 33, 192, 256, 384, 1000, 2048, 100000])(
    "covers %i items, or holds all it may",
    (items) => {
      const { team, held } = teamFor(items, 8);
      expect(Number.isInteger(Math.log2(team))).toBe(true);
      expect(team).toBeLessThanOrEqual(256);
      expect(team * held).toBeGreaterThanOrEqual(Math.min(items, 256 * 8));
      expect(held).toBeLessThanOrEqual(8);
      expect((held - 1) * team).toBeLessThan(items);
    },
  );

  it("keeps a row of 768 numbers in one subgroup of 32", () => {
    expect(teamFor(192, 8)).toEqual({ team: 32, held: 6 });
  });

  it("gives a short row no more threads than items", () => {
    expect(teamFor(5, 8)).toEqual({ team: 8, held: 1 });
    expect(teamFor(1, 8)).toEqual({ team: 1, held: 1 });
  });
});

describe("rowUses", () => {
  it("sees rows in fours where everything is a multiple of four", () => {
    const packed = view([6, 8], { strides: [20, 1], offset: 12 });
    const { fours, unit, buffers, pitches } = rowUses("op", 8, { x: packed, z: undefined }, { weight: view([8]) });
    expect({ fours, unit, pitches }).toEqual({ fours: true, unit: 4, pitches: { x_pitch: 5 } });
    expect(buffers.x).toEqual({ view: packed, vec: 4 });
    expect(Object.keys(buffers)).toEqual(["x", "weight"]);
  });

  it.each([
    ["the width", 7, view([6, 7])],
    ["the pitch", 8, view([6, 8], { strides: [9, 1] })],
    ["the offset", 8, view([6, 8], { offset: 2 })],
  ])("sees them one by one where %s is not", (_, width, x) => {
    const { fours, unit, buffers, pitches } = rowUses("op", width, { x });
    expect({ fours, unit }).toEqual({ fours: false, unit: 1 });
    expect(pitches.x_pitch).toBe(x.strides[0]);
    expect(buffers.x).toBe(x);
  });

  it("names a view that has no one pitch", () => {
    const x = view([2, 3, 4], { strides: [100, 8, 1] });
    expect(() => rowUses("rmsNorm", 4, { x })).toThrow(BackendError);
    expect(() => rowUses("rmsNorm", 4, { x })).toThrow(/rmsNorm: x \(2, 3, 4\) has strides \(100, 8, 1\)/);
  });
});

describe("blocksFor", () => {
  it("gives each workgroup rows enough, and no more workgroups than keep a device busy", () => {
    expect(blocksFor(1, 1)).toBe(1);
    expect(blocksFor(64, 1)).toBe(4);
    expect(blocksFor(1e6, 1)).toBe(1056);
    expect(blocksFor(1e6, 4)).toBe(264);
    expect(blocksFor(1e6, 5000)).toBe(1);
  });
});

describe("joiningConstants", () => {
  it("uses subgroups as far as the smallest of the device goes", () => {
    expect(joiningConstants(contextWith({ subgroups: true, subgroupMin: 32 }))).toEqual({ subgroups: true, run: 32 });
    expect(joiningConstants(contextWith({ subgroups: false, subgroupMin: 0 }))).toEqual({});
    expect(joiningConstants(contextWith({ subgroups: true, subgroupMin: 1 }))).toEqual({});
  });
});
