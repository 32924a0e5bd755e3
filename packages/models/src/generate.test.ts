import { type Device, reference } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelConfig } from "./config.js";
import { complete, type GenerateOptions, type GenerateStep, generate, type TokenDecoder } from "./generate.js";
import { MambaLM } from "./model.js";
import { extend, prefill } from "./prefill.js";

const sizes: Partial<ModelConfig> = {
  vocabSize: 26,
  dModel: 16,
  nLayers: 2,
  dState: 8,
  headDim: 8,
  chunkSize: 4,
  initializerRange: 1,
  tieEmbeddings: false,
};
const variants: Partial<ModelConfig>[] = [
  { variant: "diffmamba2", pattern: "alternate" },
  { variant: "mamba", learnableInitialState: true },
  { variant: "diffs6mamba2", residual: "post", norm: "layer", feedForward: 2, dropout: 0.5, embeddingDropout: 0.5 },
];

let device: Device;
let model: MambaLM;
beforeEach(() => {
  device = reference({ poison: true });
  model = MambaLM.create({ ...sizes, ...variants[0] }, { device, seed: 3 });
});
afterEach(() => device.dispose());

const prompt = [3, 1, 4, 1, 5, 9, 2, 6];

/** Tokens as letters, a to z: every token is one character. */
const letters = (): TokenDecoder => ({ push: (token) => String.fromCharCode(97 + token), end: () => "" });
const spell = (tokens: readonly number[]) => String.fromCharCode(...tokens.map((token) => 97 + token));

/** The greedy tokens by whole forward passes: no state, no step. */
async function greedyByForward(model: MambaLM, tokens: readonly number[], count: number): Promise<number[]> {
  const all = [...tokens];
  model.eval();
  for (let i = 0; i < count; i++) {
    using logits = model.forward(model.tokens(all));
    using best = logits.slice(1, all.length - 1).argmax();
    all.push(await best.item());
  }
  return all.slice(tokens.length);
}

async function collect(steps: AsyncIterable<GenerateStep>): Promise<GenerateStep[]> {
  const all: GenerateStep[] = [];
  for await (const step of steps) all.push(step);
  return all;
}

const tokensOf = async (...args: Parameters<typeof complete>) => (await complete(...args)).map(({ tokens }) => tokens);

describe("greedy", () => {
  it.each(variants)("gives what whole forward passes give: %j", async (variant) => {
    using own = MambaLM.create({ ...sizes, ...variant }, { device, seed: 3 });
    own.train();
    for (const parameter of own.parameters()) {
      // Learned initial states begin as zeros.
      if (parameter.shape.at(-1) === own.config.dState) {
        using noise = device.from(
          Float32Array.from({ length: parameter.size }, (_, i) => Math.sin(i + 1)),
          parameter.shape,
        );
        parameter.addInPlace(noise);
      }
    }
    const tokens = await tokensOf(own, prompt, { temperature: 0, maxTokens: 12 });
    expect(own.training).toBe(true);
    expect(tokens).toEqual([await greedyByForward(own, prompt, 12)]);
    expect(new Set(tokens[0]).size).toBeGreaterThan(1);
  });

  it("does not depend on the pieces in which the prompt is read", async () => {
    const expected = await tokensOf(model, prompt, { temperature: 0, maxTokens: 6 });
    for (const pieceLength of [1, 3, 7]) {
      const state = await model.prefill(prompt, { pieceLength });
      expect(state.lengths).toEqual([8]);
      expect(await tokensOf(model, state, { temperature: 0, maxTokens: 6 })).toEqual(expected);
    }
  });

  it("gives the log-probabilities of the tokens by the model", async () => {
    const [{ tokens, logprobs = [] }] = await complete(model, prompt, { maxTokens: 5, logprobs: true, topK: 3 });
    expect(logprobs.length).toBe(5);
    const all = [...prompt, ...tokens];
    using losses = model.eval().loss(model.tokens(all.slice(0, -1)), model.tokens(all.slice(1)), { reduction: "none" });
    const nats = [...(await losses.data())].slice(-5);
    for (const [i, logprob] of logprobs.entries()) expect(logprob).toBeCloseTo(-nats[i], 4);
  });

  it("never repeats under a heavy penalty, which counts the prompt's tokens", async () => {
    const options = { temperature: 0, maxTokens: 10, repetitionPenalty: 1e9 };
    const [tokens] = await tokensOf(model, prompt, options);
    // Positive logits of tokens seen become almost 0: with some positive logit left, none of them is taken again.
    expect(new Set([...prompt, ...tokens]).size).toBe(new Set(prompt).size + tokens.length);
    expect(await tokensOf(model, prompt, { ...options, repetitionPenalty: 1 })).not.toEqual([tokens]);
  });
});

describe("sampling", () => {
  const options = { maxTokens: 16, temperature: 1.3, topK: 20, topP: 0.95, seed: 11 };

  it("gives the same for the same seed, and other tokens for another", async () => {
    const first = await tokensOf(model, prompt, options);
    expect(await tokensOf(model, prompt, options)).toEqual(first);
    expect(await tokensOf(model, prompt, { ...options, seed: 12 })).not.toEqual(first);
  });

  it("gives each row of a batch what it gets alone, rows of other lengths and ends beside it", async () => {
    const rows = [prompt, [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]];
    const together = await complete(model, rows, { ...options, eos: 4, decode: letters, stop: ["xy"] });
    for (const [i, row] of rows.entries()) {
      const alone = await complete(model, row, { ...options, eos: 4, decode: letters, stop: "xy", seed: 11 + i });
      expect(together[i]).toEqual(alone[0]);
    }
    const lists = await tokensOf(model, [[7], prompt], { ...options, seed: [12, 11] });
    const [numbered] = await tokensOf(model, prompt, options);
    expect(lists[1]).toEqual(numbered);
  });

  it("gives several continuations of one prompt that is read once", async () => {
    using state = await prefill(model, prompt);
    const several = await tokensOf(model, state.slice([0, 0, 0]), options);
    expect(new Set(several.map(spell)).size).toBe(3);
    expect(several[0]).toEqual((await tokensOf(model, prompt, options))[0]);
  });

  it("goes on as if it had never stopped", async () => {
    const [whole] = await tokensOf(model, prompt, options);
    const state = await prefill(model, prompt);
    const [first] = await tokensOf(model, state, { ...options, maxTokens: 5, keep: true });
    expect(state.tokens).toEqual([[...prompt, ...first]]);
    const [second] = await tokensOf(model, state, { ...options, maxTokens: 11 });
    expect([...first, ...second]).toEqual(whole);
  });
});

describe("the end of a row", () => {
  it("comes at an end token, which is a token but no text", async () => {
    const [tokens] = await tokensOf(model, prompt, { temperature: 0, maxTokens: 8 });
    const end = tokens[3];
    const at = tokens.indexOf(end);
    const options = { temperature: 0, maxTokens: 8, decode: letters };
    const expected = { tokens: tokens.slice(0, at + 1), text: spell(tokens.slice(0, at)), finished: "eos" };
    expect(await complete(model, prompt, { ...options, eos: end })).toEqual([expected]);
    expect(await complete(model, prompt, { ...options, eos: [end] })).toEqual([expected]);
  });

  it("comes before a stop string that straddles tokens, and no piece has a part of it", async () => {
    const base = { temperature: 0, maxTokens: 10, decode: letters };
    const [{ tokens, text = "" }] = await complete(model, prompt, base);
    expect(text).toBe(spell(tokens));
    const stop = text.slice(4, 7);
    const cut = text.indexOf(stop);
    const steps = await collect(generate(model, prompt, { ...base, stop: [stop, "@@@"] }));
    expect(steps.flatMap((step) => step.text).join("")).toBe(text.slice(0, cut));
    expect(steps.map((step) => step.tokens[0])).toEqual(tokens.slice(0, cut + 3));
    expect(steps.map((step) => step.finished[0])).toEqual([...new Array(cut + 2).fill(undefined), "stop"]);
  });

  it("gives the text that waited where no stop string came of it", async () => {
    const base = { temperature: 0, maxTokens: 6, decode: letters };
    const [{ text = "" }] = await complete(model, prompt, base);
    const steps = await collect(generate(model, prompt, { ...base, stop: `${text.slice(3)}@` }));
    expect(steps.map((step) => step.text?.[0].length)).toEqual([1, 1, 1, 0, 0, 3]);
    expect(steps.at(-1)?.finished).toEqual(["length"]);
  });

  it("gives what the decoder holds back, at the end alone", async () => {
    // Characters of two tokens: the last one is never complete.
    const pairs = (): TokenDecoder => {
      let waiting: number[] = [];
      return {
        push: (token) => {
          waiting.push(token);
          if (waiting.length < 2) return "";
          const text = `(${waiting})`;
          waiting = [];
          return text;
        },
        end: () => (waiting.length > 0 ? "?" : ""),
      };
    };
    const [{ text, tokens }] = await complete(model, prompt, { temperature: 0, maxTokens: 3, decode: pairs });
    expect(text).toBe(`(${tokens.slice(0, 2)})?`);
  });

  it("leaves the other rows going, with -1 in the place of the ended one", async () => {
    const rows = [prompt, [8, 8]];
    const [first] = await tokensOf(model, prompt, { temperature: 0, maxTokens: 9 });
    const [second] = await tokensOf(model, rows[1], { temperature: 0, maxTokens: 9 });
    const end = first.find((token) => !second.includes(token)) as number;
    const at = first.indexOf(end);
    const steps = await collect(generate(model, rows, { temperature: 0, maxTokens: 9, eos: end, logprobs: true }));
    expect(steps.map((step) => step.tokens[0])).toEqual([...first.slice(0, at + 1), ...new Array(8 - at).fill(-1)]);
    expect(steps.map((step) => step.tokens[1])).toEqual(second);
    expect(steps.at(-1)).toMatchObject({ step: 8, finished: ["eos", "length"] });
    expect(steps.slice(at + 1).every((step) => step.logprobs?.[0] === 0 && step.finished[0] === "eos")).toBe(true);
  });

  it("keeps each row's state at that row's own end", async () => {
    const rows = [prompt, [8, 8]];
    const [first] = await tokensOf(model, prompt, { temperature: 0, maxTokens: 6 });
    using state = await prefill(model, rows);
    const [a, b] = await complete(model, state, { temperature: 0, maxTokens: 6, eos: first[0], keep: true });
    expect(a.tokens.length).toBe(1);
    expect(state.tokens).toEqual([
      [...prompt, ...a.tokens],
      [8, 8, ...b.tokens],
    ]);
    const fresh = await tokensOf(model, [...prompt, ...a.tokens], { temperature: 0, maxTokens: 4 });
    expect(await tokensOf(model, state.slice([0]), { temperature: 0, maxTokens: 4 })).toEqual(fresh);
  });
});

describe("an abort", () => {
  it("ends between two tokens with the signal's reason, and frees everything", async () => {
    const before = device.memory().tensors;
    const controller = new AbortController();
    const seen: number[] = [];
    const run = async () => {
      for await (const { step } of generate(model, prompt, { signal: controller.signal, maxTokens: 50 })) {
        seen.push(step);
        if (step === 2) controller.abort(new Error("enough"));
      }
    };
    await expect(run()).rejects.toThrow("enough");
    expect(seen).toEqual([0, 1, 2]);
    expect(device.memory().tensors).toBe(before);
    await expect(complete(model, prompt, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
    await expect(prefill(model, prompt, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
    expect(device.memory().tensors).toBe(before);
  });

  it("can come from a timer, because the event loop has turns", async () => {
    const signal = AbortSignal.timeout(30);
    await expect(complete(model, prompt, { signal, maxTokens: Number.POSITIVE_INFINITY })).rejects.toThrow(/timeout/i);
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error("late")), 5);
    const long = Array.from({ length: 4000 }, (_, i) => i % 26);
    await expect(prefill(model, long, { signal: controller.signal, pieceLength: 1 })).rejects.toThrow("late");
  });

  it("leaves a kept state after every token that came", async () => {
    using state = await prefill(model, prompt);
    const controller = new AbortController();
    const seen: number[] = [];
    const run = async () => {
      const options: GenerateOptions = { signal: controller.signal, keep: true, temperature: 0 };
      for await (const { tokens } of generate(model, state, options)) {
        seen.push(tokens[0]);
        if (seen.length === 3) controller.abort();
      }
    };
    await expect(run()).rejects.toThrow(/abort/i);
    expect(state.tokens[0]).toEqual([...prompt, ...seen]);
    const next = await tokensOf(model, state.clone(), { temperature: 0, maxTokens: 1 });
    expect(next).toEqual(await tokensOf(model, [...prompt, ...seen], { temperature: 0, maxTokens: 1 }));
  });
});

describe("memory", () => {
  it("is what it was, after a whole run, after a break, and after an error", async () => {
    const state = await prefill(model, [prompt, [1]]);
    const before = device.memory();
    await complete(model, state.clone(), { maxTokens: 5, eos: 2 });
    for await (const _ of generate(model, state.clone(), { maxTokens: 5 })) break;
    const failing = (): TokenDecoder => ({
      push: () => {
        throw new Error("no such token");
      },
      end: () => "",
    });
    await expect(complete(model, [prompt], { decode: failing })).rejects.toThrow("no such token");
    expect(device.memory()).toEqual({ ...before, peakBytes: expect.any(Number) });
    await complete(model, state, { maxTokens: 2 });
    expect(device.memory().tensors).toBe(before.tensors - 1 - state.state.flat().length);
  });

  it("does not grow with the length of the prompt beyond a piece", async () => {
    const long = Array.from({ length: 64 }, (_, i) => i % 26);
    const peak = async (prompt: readonly number[]) => {
      device.resetPeak();
      (await prefill(model, prompt, { pieceLength: 8 })).dispose();
      return device.memory().peakBytes;
    };
    expect(await peak(long)).toBe(await peak(long.slice(0, 16)));
  });
});

describe("what cannot be", () => {
  it.each<[Parameters<typeof generate>[1], GenerateOptions, string]>([
    [[], {}, "the prompt is empty; a model needs a token to begin with"],
    [[[1], []], {}, "row 1 of the prompt is empty"],
    [[3, 26], {}, "the prompt: token 26 at position 1 is outside the vocabulary of 26, 0 to 25"],
    [[[3], [0, -1]], {}, "row 1 of the prompt: token -1 at position 1 is outside"],
    [[1.5], {}, "token 1.5 at position 0"],
    [[1], { maxTokens: 0 }, "maxTokens is 0; it must be a whole number of at least 1, or Infinity"],
    [[1], { maxTokens: 1.5 }, "maxTokens is 1.5"],
    [[1], { temperature: -0.1 }, "temperature is -0.1"],
    [[1], { topP: 1.5 }, "topP is 1.5"],
    [[1], { eos: 26 }, "the end token 26 is outside the vocabulary of 26"],
    [[1], { stop: "x" }, "stop strings need `decode`"],
    [[1], { stop: ["x", ""], decode: letters }, "a stop string is empty"],
    [[1], { seed: [1, 2] }, "there are 2 seeds for 1 rows"],
    [[1], { seed: -1 }, "seed: -1 is no seed"],
    [[1], { keep: true }, "keep is for a prompt state"],
  ])("%j %j is named at once", (prompt, options, message) => {
    expect(() => generate(model, prompt, options)).toThrow(message);
  });

  it("names rows that do not fit a state, and a piece length", async () => {
    using state = await prefill(model, [[1], [2]]);
    await expect(extend(model, state, [1])).rejects.toThrow("the prompt has 1 rows, the state 2");
    await expect(prefill(model, [1], { pieceLength: 0 })).rejects.toThrow("pieceLength is 0");
  });

  it("names weights that are not numbers", async () => {
    model.backbone.mixers[0].parameters()[0].fillInPlace(Number.NaN);
    await expect(complete(model, prompt, {})).rejects.toThrow("the logit of token 0 at position 8 is NaN");
  });
});
