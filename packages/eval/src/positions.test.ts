// Layer: eval, tests. The loss at each position: one shift and no more, the state carried across windows, documents of any lengths.
import { MambaLM } from "@diffmamba/models";
import { reference } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { type CarriedModel, carried, EvaluationError, lossByPosition, smoothed } from "./index.js";

/** Knows a row by its sum so far: its loss of a target is a number of that sum and the target. */
const counting: CarriedModel = {
  begin(batch) {
    const sums = new Array<number>(batch).fill(0);
    return {
      async next(tokens, targets, length) {
        return Array.from(tokens, (token, i) => {
          sums[Math.floor(i / length)] += token;
          return lossOf(sums[Math.floor(i / length)], targets[i]);
        });
      },
      dispose() {},
    };
  },
};
const lossOf = (sum: number, target: number) => Math.sin(sum) + 2 + target / 10;

/** What position p of a document must have: the loss of token p + 1 after tokens 0 to p. */
const expected = (ids: readonly number[], p: number) =>
  lossOf(
    ids.slice(0, p + 1).reduce((a, b) => a + b),
    ids[p + 1],
  );

const documents = [
  [3, 1, 4, 1, 5, 9, 2],
  [2, 7, 1, 8],
  [1, 6, 1, 8, 0, 3],
  [5, 5],
];
const rows = documents.map((ids) => Int32Array.from(ids));

describe("loss by position", () => {
  it.each([
    [1, 512],
    [2, 1],
    [3, 2],
    [4, 4],
    [9, 6],
  ])("is each token's given those before it, once (batches of %i, windows of %i)", async (batchSize, window) => {
    const result = await lossByPosition(counting, rows, { batchSize, window });
    expect(result.documents).toBe(4);
    expect(result.counts).toEqual([4, 3, 3, 2, 2, 1]);
    for (const [p, loss] of result.loss.entries()) {
      const own = documents.filter((ids) => ids.length > p + 1).map((ids) => expected(ids, p));
      expect(loss).toBeCloseTo(own.reduce((a, b) => a + b) / own.length, 12);
    }
    const all = documents.flatMap((ids) => ids.slice(1).map((_, p) => expected(ids, p)));
    expect(result.tokens).toBe(all.length);
    expect(result.nll).toBeCloseTo(all.reduce((a, b) => a + b) / all.length, 12);
    const [a, b] = documents.filter((ids) => ids.length > 4).map((ids) => expected(ids, 3));
    expect(result.stderr[3]).toBeCloseTo(Math.abs(a - b) / 2, 7);
    expect(result.stderr[5]).toBeNull();
  });

  it("ends at a given length", async () => {
    const result = await lossByPosition(counting, rows, { length: 2, batchSize: 2 });
    expect(result.counts).toEqual([4, 3]);
    expect(result.loss[1]).toBeCloseTo([0, 1, 2].reduce((sum, i) => sum + expected(documents[i], 1), 0) / 3, 12);
  });

  it("of a language model is that of the whole document at once", async () => {
    await using device = reference();
    using model = MambaLM.create({ vocabSize: 11, dModel: 16, nLayers: 2, dState: 8, headDim: 8 }, { device, seed: 2 });
    model.eval();
    const ids = Int32Array.from({ length: 41 }, (_, i) => (i * i + (i % 3)) % 11);
    using tokens = model.tokens(ids.subarray(0, 40));
    using targets = model.tokens(ids.subarray(1));
    using losses = model.loss(tokens, targets, { reduction: "none" });
    const whole = await losses.data();
    const before = device.memory().tensors;
    const { loss } = await lossByPosition(carried(model), [ids], { window: 7 });
    expect(device.memory().tensors).toBe(before);
    for (const [p, value] of loss.entries()) expect(Math.abs(value - whole[p])).toBeLessThan(1e-5);
  });

  it("refuses documents that are none and losses that are none, and stops when told", async () => {
    await expect(lossByPosition(counting, [])).rejects.toThrow("there are no documents");
    await expect(lossByPosition(counting, [rows[0], rows[0].slice(0, 1)])).rejects.toThrow("document 1 has 1 tokens");
    await expect(lossByPosition(counting, rows, { window: 0 })).rejects.toThrow(EvaluationError);
    const broken: CarriedModel = {
      begin: () => ({
        next: async (t) => (t.map(() => 0).fill(1).length > 2 ? [1, 1, Number.NaN] : [1, 1]),
        dispose() {},
      }),
    };
    await expect(lossByPosition(broken, [Int32Array.of(1, 2, 3, 4)])).rejects.toThrow(
      "document 0: the model's loss at position 2 is NaN",
    );
    const stop = new AbortController();
    const options = { window: 2, signal: stop.signal, onProgress: () => stop.abort(new Error("as told")) };
    await expect(lossByPosition(counting, rows, options)).rejects.toThrow("as told");
  });
});

describe("smoothed", () => {
  it("is the mean around each position, of fewer at the ends", () => {
    expect(smoothed([1, 2, 3, 4, 10], 3)).toEqual([1.5, 2, 3, 17 / 3, 7]);
    expect(smoothed([4, 2], 1)).toEqual([4, 2]);
    expect(smoothed([4, 2], 101)).toEqual([3, 3]);
  });
});
