// Layer: apps/bench, tests. Units, and rows that must not be printed.
import { describe, expect, it } from "vitest";
import { checkRow, figureOf, type Row, RowError, ratioOf } from "./row.js";

const row: Row = {
  suite: "ops",
  name: "matmul nn",
  shape: "2x2x2",
  value: 2,
  unit: "GFLOP/s",
  peer: "a peer",
  ratio: 0.5,
  peerValue: 4,
  peerBest: 5,
  backend: "reference",
  best: 3,
  spread: 0,
  samples: 7,
  threads: null,
};

describe("figures", () => {
  it("count rates per second and times per piece of work", () => {
    expect(figureOf("GFLOP/s", 4e9, 2)).toBe(2);
    expect(figureOf("tokens/s", 10, 2)).toBe(5);
    expect(figureOf("ms", 1, 0.25)).toBe(250);
    expect(figureOf("ns/update", 1e6, 1e-3)).toBeCloseTo(1);
  });

  it("give ratios above 1 where ours is better, for rates and for times", () => {
    expect(ratioOf("GFLOP/s", 8, 4)).toBe(2);
    expect(ratioOf("ms", 4, 8)).toBe(2);
  });
});

describe("checkRow", () => {
  it("accepts a row with a peer and one without", () => {
    checkRow(row);
    const alone = { ...row, peer: null, ratio: null, peerValue: null, peerBest: null, backend: null, threads: 2 };
    checkRow(alone);
    // Bytes are counted, and none may be the figure that is wanted.
    checkRow({ ...alone, unit: "bytes", value: 0, best: 0 });
  });

  it.each([
    ["value", Number.NaN],
    ["value", 0],
    ["value", -1],
    ["value", Number.POSITIVE_INFINITY],
    ["value", "2"],
    ["best", 0],
    ["ratio", null],
    ["ratio", Number.NaN],
    ["peerValue", 0],
    ["unit", "furlongs"],
    ["peer", ""],
    ["suite", undefined],
    ["shape", ""],
    ["spread", -1],
    ["samples", 0],
    ["samples", 1.5],
    ["backend", 3],
    ["threads", 0],
    ["threads", undefined],
  ])("refuses %s = %s and names it", (field, value) => {
    expect(() => checkRow({ ...row, [field]: value })).toThrow(RowError);
    expect(() => checkRow({ ...row, [field]: value })).toThrow(`${field} is ${String(value)}`);
  });

  it("refuses a ratio without a peer, and what is no object", () => {
    expect(() => checkRow({ ...row, peer: null })).toThrow("ratio is 0.5; it must be null, because there is no peer");
    expect(() => checkRow(null)).toThrow(RowError);
  });
});
