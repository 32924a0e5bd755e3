// Layer: datasets, tests. Batches: against the paper's iterator written out plainly, positions that are saved and restored, and
// every wrong setting by name.
import { describe, expect, it } from "vitest";
import { type Batch, type Batches, randomBatches, rowBatches, windowBatches } from "./batches.js";
import { Mersenne } from "./mersenne.js";
import { arraySource, StoreError } from "./token-source.js";

const counting = (length: number) =>
  arraySource(
    Int32Array.from({ length }, (_, i) => i),
    { name: "counting" },
  );
const rowsOf = (values: Int32Array, length: number): number[][] =>
  Array.from({ length: values.length / length }, (_, row) => [...values.subarray(row * length, (row + 1) * length)]);

async function take(batches: Batches, count: number): Promise<Batch[]> {
  const taken: Batch[] = [];
  for (let i = 0; i < count; i++) taken.push((await batches.nextBatch()) as Batch);
  return taken;
}

/** The reference's iterator: rows in memory, rotated in place with torch.cat at the start of each epoch. */
function reference(tokens: number[], batchSize: number, length: number, seed: number | undefined, epochs: number) {
  const rowLength = Math.floor(tokens.length / batchSize);
  const data = Array.from({ length: batchSize }, (_, row) => tokens.slice(row * rowLength, (row + 1) * rowLength));
  const batches: { tokens: number[][]; targets: number[][] }[] = [];
  for (let epoch = 0; epoch < epochs; epoch++) {
    if (seed !== undefined) {
      const random = new Mersenne(seed + epoch);
      for (let row = 0; row < batchSize; row++) {
        const shift = random.word() % rowLength;
        const old = data[row] as number[];
        data[row] = [...old.slice(shift), ...old.slice(0, shift)];
      }
    }
    for (let i = 0; i < rowLength - 1; i += length) {
      const end = Math.min(i + length, rowLength - 1);
      batches.push({
        tokens: data.map((row) => row.slice(i, end)),
        targets: data.map((row) => row.slice(i + 1, end + 1)),
      });
    }
  }
  return batches;
}

describe("rowBatches", () => {
  it.each([
    [undefined, 3, 4, 50],
    [42, 3, 4, 50],
    [42, 1, 7, 50],
    [42, 5, 10, 57],
    [42, 5, 100, 57],
    [42, 25, 1, 51],
  ])("is the paper's iterator (seed %s, batch %i, length %i, %i tokens)", async (seed, batchSize, length, total) => {
    const source = counting(total);
    const expected = reference(
      Array.from({ length: total }, (_, i) => i),
      batchSize,
      length,
      seed,
      4,
    );
    const batches = rowBatches(source, {
      batchSize,
      length,
      epochs: 4,
      ...(seed !== undefined && { rotateSeed: seed }),
    });
    const got: Batch[] = [];
    for await (const batch of batches) got.push(batch);
    expect(
      got.map((batch) => ({
        tokens: rowsOf(batch.tokens, batch.length),
        targets: rowsOf(batch.targets, batch.length),
      })),
    ).toEqual(expected);
    expect(got.map(({ step }) => step)).toEqual(got.map((_, i) => i));
    expect(batches.batchesPerEpoch).toBe(expected.length / 4);
    expect(got.map(({ epoch }) => epoch)).toEqual(got.map((_, i) => Math.floor(i / batches.batchesPerEpoch)));
    expect(await batches.nextBatch()).toBeUndefined();
  });

  it("keeps a shorter last window, and drops what fills no row", async () => {
    const [first, second, third] = await take(rowBatches(counting(23), { batchSize: 2, length: 4 }), 3);
    expect(rowsOf((first as Batch).tokens, 4)).toEqual([
      [0, 1, 2, 3],
      [11, 12, 13, 14],
    ]);
    expect(rowsOf((second as Batch).targets, 4)[1]).toEqual([16, 17, 18, 19]);
    expect((third as Batch).length).toBe(2);
    expect(rowsOf((third as Batch).targets, 2)).toEqual([
      [9, 10],
      [20, 21],
    ]);
  });

  it("goes on exactly where it stood, from any step, also backwards", async () => {
    const options = { batchSize: 4, length: 5, rotateSeed: 42 };
    const whole = await take(rowBatches(counting(101), options), 23);
    for (const step of [0, 1, 4, 5, 6, 17]) {
      const first = rowBatches(counting(101), options);
      await take(first, step);
      const state = JSON.parse(JSON.stringify(first.state()));
      expect(state.step).toBe(step);
      const second = rowBatches(counting(101), options);
      await take(second, 20); // has rotated beyond: restoring goes back
      second.restore(state);
      expect(await take(second, 23 - step)).toEqual(whole.slice(step));
    }
  });

  it("stays where it was when a read fails", async () => {
    const inner = counting(40);
    let fails = true;
    const source = {
      ...inner,
      read: (start: number, count: number) => (fails ? Promise.reject(new Error("disk")) : inner.read(start, count)),
    };
    const batches = rowBatches(source, { batchSize: 2, length: 5 });
    await expect(batches.nextBatch()).rejects.toThrow("disk");
    fails = false;
    expect((await batches.nextBatch())?.step).toBe(0);
  });

  it("refuses what makes no batch", async () => {
    expect(() => rowBatches(counting(5), { batchSize: 3, length: 4 })).toThrow(
      "counting: it holds 5 tokens, but 3 rows want at least 2 each; use more data or a batch of at most 2",
    );
    expect(() => rowBatches(counting(50), { batchSize: 0, length: 4 })).toThrow(
      '"batchSize" wants a whole number above 0, got 0',
    );
    expect(() => rowBatches(counting(50), { batchSize: 1, length: 1.5 })).toThrow('"length" wants');
  });
});

describe("randomBatches", () => {
  const options = { batchSize: 4, length: 6, seed: 9 };

  it("takes windows from the whole source, each with its targets", async () => {
    const starts = new Set<number>();
    for (const batch of await take(randomBatches(counting(20), options), 100)) {
      for (const [i, token] of batch.tokens.entries()) expect(batch.targets[i]).toBe(token + 1);
      for (const row of rowsOf(batch.tokens, 6)) {
        expect(row).toEqual(row.map((_, i) => (row[0] as number) + i));
        starts.add(row[0] as number);
      }
    }
    expect([...starts].sort((a, b) => a - b)).toEqual(Array.from({ length: 14 }, (_, i) => i));
  });

  it("is the same for the same seed, goes on where it stood, and counts epochs", async () => {
    const whole = await take(randomBatches(counting(100), options), 12);
    expect(whole.map(({ epoch }) => epoch)).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    const first = randomBatches(counting(100), options);
    await take(first, 7);
    const second = randomBatches(counting(100), options);
    second.restore(JSON.parse(JSON.stringify(first.state())));
    expect(await take(second, 5)).toEqual(whole.slice(7));
    const other = await take(randomBatches(counting(100), { ...options, seed: 10 }), 12);
    expect(other).not.toEqual(whole);
  });

  it("refuses a source that is too short", () => {
    expect(() => randomBatches(counting(6), options)).toThrow(
      "it holds 6 tokens, but a window of 6 and its last target want 7",
    );
    expect(() => randomBatches(counting(7), options)).not.toThrow();
  });
});

describe("a saved position", () => {
  it("of other settings, other data or another iterator is refused by name", () => {
    const state = rowBatches(counting(100), { batchSize: 4, length: 5, rotateSeed: 42 }).state();
    const restore =
      (batches: Batches, saved: unknown = state) =>
      () =>
        batches.restore(saved);
    const rows = (options: object, tokens = 100) =>
      rowBatches(counting(tokens), { batchSize: 4, length: 5, rotateSeed: 42, ...options });
    expect(restore(rows({}))).not.toThrow();
    expect(restore(rows({ batchSize: 8 }))).toThrow('the saved data position has "batchSize" 4, but this run has 8');
    expect(restore(rows({ length: 6 }))).toThrow('"length" 5');
    expect(restore(rows({ rotateSeed: undefined }))).toThrow('"seed" 42, but this run has null');
    expect(restore(rows({}, 99))).toThrow('"tokens" 100');
    expect(restore(randomBatches(counting(100), { batchSize: 4, length: 5, seed: 42 }))).toThrow('"kind" "rows"');
    expect(restore(rows({}), { ...state, step: -1 })).toThrow('"step" -1; expected a count');
    expect(restore(rows({}), null)).toThrow(StoreError);
  });
});

describe("windowBatches", () => {
  it.each([
    [2, 5, 3],
    [16, 5, 3],
    [17, 5, 3],
    [6, 5, 3],
    [40, 3, 4],
    [4, 10, 2],
  ])("gives N - 1 scores of %i tokens (length %i, batch %i)", async (total, length, batchSize) => {
    const targets: number[] = [];
    for await (const batch of windowBatches(counting(total), { batchSize, length })) {
      expect(batch.tokens).toHaveLength(batch.batchSize * batch.length);
      expect(batch.batchSize).toBeLessThanOrEqual(batchSize);
      for (const [i, target] of batch.targets.entries()) expect(batch.tokens[i]).toBe(target - 1);
      for (const row of rowsOf(batch.tokens, batch.length)) expect((row[0] as number) % length).toBe(0);
      targets.push(...batch.targets);
    }
    expect(targets).toEqual(Array.from({ length: total - 1 }, (_, i) => i + 1));
  });

  it("refuses a source without a score", async () => {
    const windows = windowBatches(counting(1), { batchSize: 1, length: 4 });
    await expect(windows.next()).rejects.toThrow("it holds 1 tokens; a score wants a token and its target");
  });
});
