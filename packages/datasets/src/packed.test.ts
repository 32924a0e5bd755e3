// Layer: datasets, tests. Packed windows: each once an epoch, documents told apart, stores mixed by weight, positions saved and restored.
import { describe, expect, it } from "vitest";
import type { Batch } from "./batches.js";
import { ignoredTarget, packedBatches } from "./packed.js";
import { Permutation } from "./permutation.js";
import { arraySource, type TokenSource } from "./token-source.js";

/** Tokens 0, 1, 2, ... with documents that begin at these places. */
function counting(length: number, starts?: readonly number[], first = 0): TokenSource {
  const source = arraySource(Int32Array.from({ length }, (_, i) => first + i));
  if (starts === undefined) return source;
  return { ...source, documents: { startsBetween: async (from, to) => starts.filter((at) => at > from && at < to) } };
}

const rowsOf = ({ tokens, length }: Batch): number[][] =>
  Array.from({ length: tokens.length / length }, (_, row) => [...tokens.subarray(row * length, (row + 1) * length)]);

describe("Permutation", () => {
  it.each([1, 2, 3, 16, 17, 1000, 4097])("has each of %i places once, in another order each round and seed", (n) => {
    const all = (seed: number, round: number) => {
      const order = new Permutation(n, seed, round);
      return Array.from({ length: n }, (_, place) => order.at(place));
    };
    for (const [seed, round] of [
      [1, 0],
      [1, 1],
      [2, 0],
    ] as const) {
      expect([...all(seed, round)].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
    }
    expect(all(1, 0)).toEqual(all(1, 0));
    if (n < 16) return;
    expect(all(1, 0)).not.toEqual(all(1, 1));
    expect(all(1, 0)).not.toEqual(all(2, 0));
  });

  it("leaves no trace of the old order", () => {
    const n = 10_000;
    const order = new Permutation(n, 5);
    let [sum, neighbours] = [0, 0];
    for (let place = 0; place < n; place++) {
      sum += place * order.at(place);
      if (place > 0 && Math.abs(order.at(place) - order.at(place - 1)) === 1) neighbours++;
    }
    const mean = (n - 1) / 2;
    const correlation = (sum / n - mean * mean) / ((n * n - 1) / 12);
    expect(Math.abs(correlation)).toBeLessThan(0.04);
    expect(neighbours).toBeLessThan(15);
  });

  it("works on numbers beyond 32 bits", () => {
    const order = new Permutation(2 ** 40, 1);
    const values = Array.from({ length: 50 }, (_, i) => order.at(i * 2 ** 34));
    expect(new Set(values).size).toBe(50);
    expect(Math.max(...values)).toBeGreaterThan(2 ** 38);
    expect(() => order.at(2 ** 40)).toThrow("place 1099511627776 was asked for");
    expect(() => new Permutation(0, 1)).toThrow("wants a whole number of places");
  });
});

describe("packedBatches", () => {
  it("takes every window once an epoch, with the tokens that follow as targets", async () => {
    const batches = packedBatches(counting(101), { batchSize: 2, length: 10, seed: 3 });
    expect(batches.batchesPerEpoch).toBe(5);
    const epochs: number[][] = [];
    for (let epoch = 0; epoch < 2; epoch++) {
      const starts: number[] = [];
      for (let i = 0; i < 5; i++) {
        const batch = (await batches.nextBatch()) as Batch;
        expect(batch.epoch).toBe(epoch);
        expect(batch.seqIdx).toBeUndefined();
        expect([...batch.targets]).toEqual([...batch.tokens].map((token) => token + 1));
        starts.push(...rowsOf(batch).map((row) => row[0] as number));
      }
      expect([...starts].sort((a, b) => a - b)).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
      epochs.push(starts);
    }
    expect(epochs[0]).not.toEqual(epochs[1]);
  });

  it("may keep the order of the source", async () => {
    const batch = await packedBatches(counting(41), { batchSize: 4, length: 10, seed: 0, ordered: true }).nextBatch();
    expect(rowsOf(batch as Batch).map(([first]) => first)).toEqual([0, 10, 20, 30]);
  });

  it("tells documents apart, and leaves their first tokens out of the loss of others", async () => {
    const source = counting(13, [0, 3, 5, 6, 12]);
    const options = { batchSize: 2, length: 6, seed: 0, ordered: true };
    const batch = (await packedBatches(source, options).nextBatch()) as Batch;
    expect(rowsOf(batch)).toEqual([
      [0, 1, 2, 3, 4, 5],
      [6, 7, 8, 9, 10, 11],
    ]);
    expect([...(batch.seqIdx as Int32Array)]).toEqual([0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 0, 0]);
    const hidden = ignoredTarget;
    expect([...batch.targets]).toEqual([1, 2, hidden, 4, hidden, hidden, 7, 8, 9, 10, 11, hidden]);
    const open = (await packedBatches(source, { ...options, maskBoundaries: false }).nextBatch()) as Batch;
    expect([...open.targets]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  });

  it("mixes sources by weight, exactly at every moment", async () => {
    const mixed = () =>
      packedBatches(
        [
          { source: counting(1001), weight: 3 },
          { source: counting(201, undefined, 10_000), weight: 1 },
        ],
        { batchSize: 4, length: 10, seed: 1 },
      );
    const batches = mixed();
    let second = 0;
    for (let i = 1; i <= 30; i++) {
      for (const [first] of rowsOf((await batches.nextBatch()) as Batch)) if ((first as number) >= 10_000) second++;
      expect(second).toBe(i);
    }
    const state = JSON.parse(JSON.stringify(batches.state()));
    expect(state).toMatchObject({ step: 30, taken: [90, 30] });
    const rest = [await batches.nextBatch(), await batches.nextBatch()];
    const resumed = mixed();
    resumed.restore(state);
    expect([await resumed.nextBatch(), await resumed.nextBatch()]).toEqual(rest);
  });

  it("refuses a position of something else, and settings that are none", () => {
    const options = { batchSize: 4, length: 10, seed: 1 };
    const batches = packedBatches(counting(1001), options);
    const state = batches.state();
    for (const [other, message] of [
      [packedBatches(counting(1001), { ...options, seed: 2 }), 'has "seed" 1, but this run has 2'],
      [packedBatches(counting(901), options), 'has "tokens" [1001], but this run has [901]'],
      [
        packedBatches(
          [
            { source: counting(1001), weight: 1 },
            { source: counting(50), weight: 1 },
          ],
          options,
        ),
        '"tokens"',
      ],
    ] as const) {
      expect(() => other.restore(state)).toThrow(message);
    }
    expect(() => batches.restore({ ...state, step: 3 })).toThrow("which do not go together");
    expect(() => batches.restore(undefined)).toThrow('has "kind" undefined, but this run has "packed"');
    expect(() => packedBatches(counting(10), options)).toThrow("array: it holds 10 tokens, but a window of 10");
    expect(() => packedBatches([], options)).toThrow("there is no source");
    expect(() => packedBatches([{ source: counting(50), weight: 0 }], options)).toThrow("its weight wants to be");
    expect(() => packedBatches(counting(50), { ...options, length: 0 })).toThrow(
      '"length" wants a whole number above 0',
    );
  });

  it("does not move on where a read fails", async () => {
    const source = counting(101);
    let fails = true;
    const flaky = {
      ...source,
      read: (at: number, count: number) => (fails ? Promise.reject(new Error("gone")) : source.read(at, count)),
    };
    const batches = packedBatches(flaky, { batchSize: 2, length: 10, seed: 3 });
    await expect(batches.nextBatch()).rejects.toThrow("gone");
    expect(batches.state()).toMatchObject({ step: 0, taken: [0] });
    fails = false;
    expect(await batches.nextBatch()).toEqual(
      await packedBatches(source, { batchSize: 2, length: 10, seed: 3 }).nextBatch(),
    );
  });
});
