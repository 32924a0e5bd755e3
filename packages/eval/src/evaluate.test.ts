// Layer: eval, tests. Models whose probabilities are known in closed form, and what must be refused.
import { arraySource } from "@diffmamba/datasets";
import { type Device, reference, softmaxCrossEntropy, type Tensor } from "@diffmamba/tensor";
import { ByteTokenizer, CharacterTokenizer } from "@diffmamba/tokenizer";
import { afterAll, describe, expect, it } from "vitest";
import { EvaluationError, evaluate, type ScoredModel } from "./index.js";

const device = reference();
afterAll(() => device.dispose());

/** Knows which token follows which with what probability: the logits are log p, so a loss is exactly -log p. */
class Bigram implements ScoredModel {
  training = true;
  readonly modes: boolean[] = [];
  readonly shapes: (readonly number[])[] = [];
  readonly table: Tensor;

  constructor(
    readonly device: Device,
    probabilities: readonly (readonly number[])[],
  ) {
    this.table = device.tensor(probabilities.map((row) => row.map(Math.log)));
  }

  train(training = true) {
    this.training = training;
    this.modes.push(training);
  }

  loss(tokens: Tensor, targets: Tensor): Tensor {
    expect(this.training).toBe(false);
    this.shapes.push(tokens.shape);
    return softmaxCrossEntropy(this.table.gather(tokens), targets, { reduction: "none" });
  }
}

const probabilities = [
  [0.5, 0.25, 0.25],
  [0.125, 0.625, 0.25],
  [0.2, 0.3, 0.5],
];
const model = () => new Bigram(device, probabilities);
const ids = (count: number) => Int32Array.from({ length: count }, (_, i) => (i * i + (i % 5)) % 3);

/** -log p of target t, given the token before it. */
const nats = (tokens: Int32Array, t: number) => -Math.log(probabilities[tokens[t - 1]][tokens[t]]);

describe("evaluate", () => {
  it.each([1, 2, 3, 7, 64])("scores N - 1 tokens, whatever the batch (of %i)", async (batchSize) => {
    const tokens = ids(24);
    const bigram = model();
    const score = await evaluate(bigram, arraySource(tokens), { length: 5, batchSize });
    let total = 0;
    for (let t = 1; t < 24; t++) total += nats(tokens, t);
    expect(score.tokens).toBe(23);
    expect(score.nll).toBeCloseTo(total / 23, 6);
    expect(score.ppl).toBeCloseTo(Math.exp(total / 23), 5);
    expect(bigram.shapes.reduce((sum, [b, l]) => sum + b * l, 0)).toBe(23);
    expect(bigram.shapes.at(-1)).toEqual([1, 3]); // 4 windows of 5, then the last 3
    expect(bigram.shapes[0]).toEqual([Math.min(batchSize, 4), 5]);
  });

  it("gives the loss at each position of a window", async () => {
    const tokens = ids(13);
    const score = await evaluate(model(), arraySource(tokens), { length: 5, batchSize: 2 });
    expect(score.lossByPosition).toHaveLength(5);
    const at = (position: number) => [1, 6, 11].map((t) => t + position).filter((t) => t < 13);
    for (const [position, loss] of score.lossByPosition.entries()) {
      const expected = at(position).map((t) => nats(tokens, t));
      expect(loss).toBeCloseTo(expected.reduce((a, b) => a + b) / expected.length, 6);
    }
    const short = await evaluate(model(), arraySource(ids(4)), { length: 5, batchSize: 2 });
    expect(short.lossByPosition).toHaveLength(3);
  });

  it("averages over batches of equal weight as the paper does, the last shorter window too", async () => {
    const tokens = ids(9); // windows of 6 and of 2
    const score = await evaluate(model(), arraySource(tokens), { length: 6, batchSize: 1 });
    const mean = (from: number, to: number) => {
      let sum = 0;
      for (let t = from; t < to; t++) sum += nats(tokens, t);
      return sum / (to - from);
    };
    const [first, last] = [mean(1, 7), mean(7, 9)];
    expect(score.batches).toBe(2);
    expect(score.pplBatchMean).toBeCloseTo((Math.exp(first) + Math.exp(last)) / 2, 5);
    expect(score.bpbBatchMean).toBeCloseTo((first + last) / 2 / Math.LN2, 6);
    expect(score.ppl).toBeCloseTo(Math.exp((6 * first + 2 * last) / 8), 5);
    expect(score.pplBatchMean).not.toBeCloseTo(score.ppl, 3);
  });

  it("cuts rows as the paper's iterator: equal rows, the rest dropped, the k-th window of each", async () => {
    const tokens = ids(23); // 3 rows of 7: 6 scores each, in windows of 4 and 2
    const bigram = model();
    const score = await evaluate(bigram, arraySource(tokens), { length: 4, batchSize: 3, batching: "rows" });
    expect(bigram.shapes).toEqual([
      [3, 4],
      [3, 2],
    ]);
    const means = [
      [1, 5],
      [5, 7],
    ].map(([from, to]) => {
      let sum = 0;
      for (let row = 0; row < 3; row++) for (let t = from; t < to; t++) sum += nats(tokens, row * 7 + t);
      return sum / (3 * (to - from));
    });
    expect(score.tokens).toBe(18);
    expect(score.nll).toBeCloseTo((4 * means[0] + 2 * means[1]) / 6, 6);
    expect(score.pplBatchMean).toBeCloseTo((Math.exp(means[0]) + Math.exp(means[1])) / 2, 5);
  });

  it("counts bytes and characters of the scored text", async () => {
    const text = "aé€a€éa€";
    const characters = CharacterTokenizer.fromText(text);
    const encoded = characters.encode(text);
    const score = await evaluate(model(), arraySource(encoded), { length: 3, batchSize: 2, text: characters });
    expect(score.bytes).toBe(new TextEncoder().encode(text).length - 1); // without the first a
    expect(score.characters).toBe(7);
    expect(score.bpb).toBeCloseTo((score.nll * 7) / Math.LN2 / 15, 6);
    expect(score.bpc).toBeCloseTo(score.nll / Math.LN2, 6);
    expect((await evaluate(model(), arraySource(encoded), { length: 3, batchSize: 2 })).bpb).toBeUndefined();
  });

  it("counts a character once that lies across two windows", async () => {
    const bytes = new ByteTokenizer(new TextEncoder().encode("€")); // three bytes, ids 0 1 2
    const score = await evaluate(model(), arraySource(Int32Array.of(0, 0, 1, 2, 0, 1, 2)), {
      length: 2,
      batchSize: 1,
      text: bytes,
    });
    expect([score.bytes, score.characters]).toEqual([6, 2]);
  });

  it("reads a part, tells how far it is, and stops when told", async () => {
    const tokens = ids(40);
    const seen: number[] = [];
    const options = { length: 4, batchSize: 2, onProgress: (p: { tokens: number }) => void seen.push(p.tokens) };
    const part = await evaluate(model(), arraySource(tokens), { ...options, maxTokens: 15 });
    expect(seen).toEqual([8, 12]); // windows 0, 3 and 6 of the 9 whole ones
    const nll = (start: number) => [1, 2, 3, 4].reduce((sum, i) => sum + nats(tokens, start + i), 0);
    expect(part.tokens).toBe(12);
    expect(part.nll).toBeCloseTo((nll(0) + nll(12) + nll(24)) / 12, 6);
    expect((await evaluate(model(), arraySource(tokens), { ...options, maxTokens: 39 })).tokens).toBe(39);
    expect((await evaluate(model(), arraySource(tokens), { ...options, maxTokens: 1 })).tokens).toBe(4);
    const stop = new AbortController();
    const bigram = model();
    const stopped = evaluate(bigram, arraySource(tokens), {
      length: 4,
      batchSize: 2,
      signal: stop.signal,
      onProgress: () => stop.abort(new Error("as told")),
    });
    await expect(stopped).rejects.toThrow("as told");
    expect(bigram.shapes).toHaveLength(1);
  });

  it("frees all it made and leaves the model in the mode it was in", async () => {
    const bigram = model();
    const before = device.memory();
    await evaluate(bigram, arraySource(ids(50)), { length: 4, batchSize: 3 });
    const after = device.memory();
    expect([after.tensors, after.bytes]).toEqual([before.tensors, before.bytes]);
    expect(bigram.modes).toEqual([false, true]);
  });

  it("refuses too little data and options that are none, by name", async () => {
    const score = (count: number, options: object = {}) =>
      evaluate(model(), arraySource(ids(count), { name: "test.txt" }), { length: 4, batchSize: 3, ...options });
    await expect(score(1)).rejects.toThrow(/test\.txt: .*1 tokens.*at least 2/);
    await expect(score(0)).rejects.toThrow(/test\.txt: .*0 tokens.*at least 2/);
    await expect(score(5, { batching: "rows" })).rejects.toThrow(/test\.txt: .*3 rows/);
    expect((await score(2)).tokens).toBe(1);
    await expect(score(9, { length: 0 })).rejects.toThrow(/"length" .*0/);
    await expect(score(9, { batchSize: 1.5 })).rejects.toThrow(/"batchSize" .*1\.5/);
    await expect(score(9, { maxTokens: 1.5 })).rejects.toThrow("maxTokens is 1.5");
    await expect(score(9, { maxTokens: 4, batching: "rows" })).rejects.toThrow('does not go with batching "rows"');
  });

  it("names the token at which a loss is not a number, and a token that the model does not know", async () => {
    const impossible = new Bigram(device, [
      [0.5, 0.5, 0],
      [0.5, 0.25, 0.25],
      [1, 0, 0],
    ]);
    const tokens = Int32Array.of(0, 1, 0, 0, 0, 2, 0);
    const broken = evaluate(impossible, arraySource(tokens, { name: "x" }), { length: 2, batchSize: 2 });
    await expect(broken).rejects.toThrow(EvaluationError);
    await expect(broken).rejects.toThrow("x: the model's loss at token 5 is Infinity");
    const inRow = Int32Array.of(0, 1, 0, 0, 0, 0, 2, 0, 9); // the second of two rows of 4, in its second window
    const rows = evaluate(impossible, arraySource(inRow, { name: "x" }), { length: 1, batchSize: 2, batching: "rows" });
    await expect(rows).rejects.toThrow("x: the model's loss at token 6 is Infinity");
    expect(impossible.training).toBe(true);
    await expect(evaluate(model(), arraySource(Int32Array.of(0, 1, 7)), { length: 2, batchSize: 1 })).rejects.toThrow(
      /7/,
    );
  });
});
