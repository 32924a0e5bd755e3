// Layer: eval, tests. A language model asked by the three calls, against its logits; and that batches, order and shared states change
// nothing.
import { MambaLM, type ModelConfig } from "@diffmamba/models";
import { type Device, reference } from "@diffmamba/tensor";
import { ByteTokenizer } from "@diffmamba/tokenizer";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ContinuationRequest, encodePair, recurrentModel } from "./index.js";

const letters = new TextEncoder().encode("abcdefgh .");
const tokenizer = new ByteTokenizer(letters);
const small: Partial<ModelConfig> = {
  vocabSize: letters.length,
  dModel: 16,
  nLayers: 2,
  dState: 8,
  headDim: 8,
  chunkSize: 8,
  initializerRange: 1,
};
const kinds: [string, Partial<ModelConfig>][] = [
  ["diffmamba2", small],
  ["mamba with a learned state", { ...small, variant: "mamba", learnableInitialState: true }],
  ["adaptive with empty clusters", { ...small, variant: "mamba2", adaptive: { cutoffs: [6, 20], divValue: 2 } }],
];

let device: Device;
beforeAll(() => {
  device = reference();
});
afterAll(() => device.dispose());

/** Contexts of many lengths, some of them shared, one of a single token, and continuations of one token and of more. */
const requests: ContinuationRequest[] = [
  ...["a", "dead bee", "a cab had a bad cafe.", "abc. abc. abc. abc. abc."].flatMap((context) =>
    [" bed", " f", " a faded facade"].map((continuation) => ({ context, continuation })),
  ),
  { context: "hag ", continuation: "bag" },
];

/** -nats and greediness of a continuation from the whole sequence's logits and losses. */
async function direct(model: MambaLM, request: ContinuationRequest) {
  const { context, continuation } = encodePair(tokenizer, request);
  const ids = [...context, ...continuation];
  using tokens = model.tokens(ids.slice(0, -1));
  using targets = model.tokens(ids.slice(1));
  using losses = model.loss(tokens, targets, { reduction: "none" });
  using logits = model.forward(tokens);
  using best = logits.argmax();
  const [nats, top] = [await losses.data(), await best.data()];
  let [logLikelihood, greedy] = [0, true];
  for (let i = context.length - 1; i < ids.length - 1; i++) {
    logLikelihood -= nats[i];
    greedy &&= top[i] === ids[i + 1];
  }
  return { logLikelihood, greedy };
}

describe.each(kinds)("a model of %s", (_, config) => {
  it("scores continuations as its whole-sequence losses do, in any batch and order, with shared states or without", async () => {
    using model = MambaLM.create(config, { device, seed: 3 });
    const expected = await Promise.all(requests.map((request) => direct(model, request)));
    const order = requests.map((_, i) => (i * 5) % requests.length);
    for (const batchSize of [1, 3, 64]) {
      for (const shareContext of [true, false]) {
        const asked = recurrentModel(model, tokenizer, { batchSize, shareContext, pieceLength: 5 });
        const scores = await asked.loglikelihood(order.map((i) => requests[i]));
        for (const [at, i] of order.entries()) {
          expect(Math.abs(scores[at].logLikelihood - expected[i].logLikelihood)).toBeLessThan(1e-5);
          expect(scores[at].greedy).toBe(expected[i].greedy);
        }
      }
    }
    expect(model.training).toBe(true);
  });

  it("scores whole texts with the state carried", async () => {
    using model = MambaLM.create(config, { device, seed: 4 });
    const texts = ["a cab", "abc. abc. abc. abc. abc.", "f"];
    const expected = await Promise.all(
      texts.map(async (text) => {
        const ids = [9, ...tokenizer.encode(text)];
        using tokens = model.tokens(ids.slice(0, -1));
        using targets = model.tokens(ids.slice(1));
        using loss = model.loss(tokens, targets, { reduction: "sum" });
        return -(await loss.item());
      }),
    );
    for (const [batchSize, pieceLength] of [
      [1, 512],
      [2, 7],
      [3, 1],
    ]) {
      const sums = await recurrentModel(model, tokenizer, {
        batchSize,
        pieceLength,
        prefixToken: 9,
      }).loglikelihoodRolling(texts);
      for (const [i, sum] of sums.entries()) expect(Math.abs(sum - expected[i])).toBeLessThan(1e-4);
    }
  });

  it("generates what it generates alone, up to a stop text", async () => {
    using model = MambaLM.create(config, { device, seed: 5 });
    const prompts = ["a", "dead bee", "abc. abc."].map((context) => ({
      ...{ context, until: ["."], maxTokens: 12, temperature: 0, seed: 0 },
    }));
    const together = await recurrentModel(model, tokenizer, { batchSize: 8 }).generateUntil(prompts);
    for (const [i, prompt] of prompts.entries()) {
      expect(await recurrentModel(model, tokenizer, { batchSize: 1 }).generateUntil([prompt])).toEqual([together[i]]);
      expect(together[i]).not.toContain(".");
      expect(together[i].length).toBeLessThanOrEqual(12);
    }
  });
});

describe("the shared state", () => {
  it("reads a context once, whatever goes on from it", async () => {
    using model = MambaLM.create(small, { device, seed: 1 });
    const read = async (shareContext: boolean) => {
      let tokens = 0;
      const run = model.run.bind(model);
      model.run = (ids, options) => {
        tokens += ids.size;
        return run(ids, options);
      };
      const context = "a cab had a bad cafe.";
      const asked = [" b", " c", " d", " e"].map((continuation) => ({ context, continuation }));
      await recurrentModel(model, tokenizer, { shareContext }).loglikelihood(asked);
      model.run = run;
      return tokens;
    };
    expect(await read(true)).toBe(20 + 4 * 2);
    expect(await read(false)).toBe(4 * (20 + 2));
  });

  it("leaves no tensor behind, also where it is stopped", async () => {
    using model = MambaLM.create(small, { device, seed: 1 });
    const before = device.memory().tensors;
    const stop = new AbortController();
    const asked = recurrentModel(model, tokenizer, { batchSize: 2 });
    await asked.loglikelihood(requests);
    const stopped = asked.loglikelihood(requests, {
      signal: stop.signal,
      onAnswers: () => stop.abort(new Error("as told")),
    });
    await expect(stopped).rejects.toThrow("as told");
    expect(device.memory().tensors).toBe(before);
  });
});

describe("a request", () => {
  it("gives white space at the context's end to the continuation, and cuts by the context's tokens", () => {
    const words = {
      specialTokens: { eos: 0 },
      encode: (text: string) => Int32Array.from(text.match(/ ?[a-z]+/g) ?? [], (word) => word.length),
    };
    expect(encodePair(words, { context: "ab cd ", continuation: "efg" })).toEqual({
      context: Int32Array.of(2, 3),
      continuation: Int32Array.of(4),
    });
    expect(encodePair(words, { context: "", continuation: "ab" }).context).toEqual(Int32Array.of(0));
    expect(encodePair(words, { context: "", continuation: "ab" }, 5).context).toEqual(Int32Array.of(5));
  });

  it("without tokens is refused with what it holds", async () => {
    using model = MambaLM.create(small, { device, seed: 1 });
    const asked = recurrentModel(model, tokenizer);
    await expect(asked.loglikelihood([{ context: "abc", continuation: "" }])).rejects.toThrow(
      'the continuation "" of "abc" has no token of its own.',
    );
    await expect(asked.loglikelihood([{ context: "", continuation: "a" }])).rejects.toThrow("name one as prefixToken");
    expect(() => recurrentModel(model, tokenizer, { batchSize: 0 })).toThrow('"batchSize" wants a whole number');
  });
});
