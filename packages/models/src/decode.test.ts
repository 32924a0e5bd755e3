// Layer: models, tests of decoding on the device: the tokens, states and ends of decoding by the host.
import { type Device, reference } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ModelConfig } from "./config.js";
import { complete, type GenerateOptions, generate } from "./generate.js";
import { MambaLM } from "./model.js";
import { prefill } from "./prefill.js";
import { relativeError } from "./tiny.testing.js";

const sizes: Partial<ModelConfig> = {
  ...{ vocabSize: 26, dModel: 16, nLayers: 2, dState: 8, headDim: 8, chunkSize: 4 },
  ...{ initializerRange: 1, tieEmbeddings: false },
};

let device: Device;
let model: MambaLM;
beforeEach(() => {
  device = reference({ poison: true });
  model = MambaLM.create({ ...sizes, variant: "diffmamba2", pattern: "alternate" }, { device, seed: 3 });
});
afterEach(() => device.dispose());

const rows = [
  [3, 1, 4, 1, 5, 9, 2, 6],
  [7, 7],
  [2, 0, 25],
];
const letters = () => ({ push: (token: number) => String.fromCharCode(97 + token), end: () => "" });

/** Both ways, and how often kernel calls were recorded. */
async function both(
  options: GenerateOptions,
  prompt: readonly number[] | readonly (readonly number[])[] = rows,
  on = model,
) {
  let recordings = 0;
  const record = device.record.bind(device);
  device.record = (fn) => {
    recordings++;
    return record(fn);
  };
  const before = device.memory().tensors;
  const host = await complete(on, prompt, { ...options, onDevice: false });
  expect(recordings).toBe(0);
  const onDevice = await complete(on, prompt, { ...options, onDevice: true });
  on.train();
  expect(device.memory().tensors).toBe(before);
  return { host, onDevice, recordings };
}

describe("decoding on the device", () => {
  it.each([
    ["diffmamba2", {}],
    ["mamba", { learnableInitialState: true }],
    ["diffs6mamba2", { residual: "post", norm: "layer", feedForward: 2, dropout: 0.5 }],
  ] as const)("draws the tokens that the host draws: %s", async (variant, more) => {
    using own = MambaLM.create({ ...sizes, variant, ...more }, { device, seed: 3 });
    for (const options of [{ temperature: 0 }, { temperature: 0.9, seed: 5 }]) {
      const { host, onDevice, recordings } = await both({ maxTokens: 8, ...options }, rows, own);
      expect(onDevice).toEqual(host);
      expect(recordings).toBe(1);
    }
  });

  it.each([{ topK: 3 }, { topP: 0.6 }, { minP: 0.2 }, { topK: 9, topP: 0.9, minP: 0.05, temperature: 1.4 }])(
    "with %j",
    async (options) => {
      const { host, onDevice } = await both({ maxTokens: 12, seed: [1, 2, 9], ...options });
      expect(onDevice).toEqual(host);
    },
  );

  it("ends rows at end tokens and stop strings, and gives probabilities and text", async () => {
    const [first] = await complete(model, rows, { maxTokens: 4, seed: 2 });
    const options = { maxTokens: 6, seed: 2, eos: first.tokens[1], decode: letters, stop: "zz", logprobs: true };
    const { host, onDevice } = await both(options);
    const close = host.map(({ logprobs, ...rest }) => ({
      ...rest,
      logprobs: logprobs?.map((p) => expect.closeTo(p, 4)),
    }));
    expect(onDevice).toEqual(close);
    expect(onDevice[0].finished).toBe("eos");
  });

  it("leaves a state that is kept after every token that came", async () => {
    const ways = [];
    for (const onDevice of [false, true]) {
      using state = await prefill(model, rows[0]);
      const [{ tokens }] = await complete(model, state, { maxTokens: 5, keep: true, onDevice });
      expect(state.tokens).toEqual([[...rows[0], ...tokens]]);
      ways.push(await complete(model, state.clone(), { maxTokens: 5, seed: 4, onDevice }));
    }
    expect(ways[1]).toEqual(ways[0]);
  });

  it("stops in the middle, and frees everything", async () => {
    const before = device.memory().tensors;
    for await (const { step } of generate(model, rows, { onDevice: true })) if (step === 3) break;
    const controller = new AbortController();
    const run = async () => {
      for await (const { step } of generate(model, rows, { onDevice: true, signal: controller.signal })) {
        if (step === 2) controller.abort(new Error("enough"));
      }
    };
    await expect(run()).rejects.toThrow("enough");
    expect(model.training).toBe(true);
    expect(device.memory().tensors).toBe(before);
  });

  it("says so where the logits are no numbers", async () => {
    model.parameters()[0].fillInPlace(Number.NaN);
    await expect(complete(model, rows, { onDevice: true })).rejects.toThrow("no token can be drawn for row 0");
  });

  describe("with tokens kept beside the states", () => {
    /** Lets the backend ask for it, with room for so many tokens, and counts the tokens of the kernel and the settled states. */
    function keeping(tokens: number) {
      Object.defineProperty(device.backend, "keepsTokens", { value: () => tokens });
      const kernels = device.backend.kernels as Required<typeof device.backend.kernels>;
      return { deferred: vi.spyOn(kernels, "ssdDeferred"), settled: vi.spyOn(kernels, "ssdSettle") };
    }

    it.each([
      ["diffmamba2", "f32"],
      ["mamba2", "bf16"],
      ["diffmamba2e", "f16"],
    ] as const)("draws the same: %s, states in %s", async (variant, stateDtype) => {
      using own = MambaLM.create({ ...sizes, variant, dHasHeadDim: true }, { device, seed: 3 });
      // A state of 16 bits is rounded at other times: only without that are all tokens the same.
      const options = { maxTokens: 11, seed: 5, ...(stateDtype === "f32" ? {} : { stateDtype, maxTokens: 3 }) };
      const before = await complete(own, rows, { ...options, onDevice: true });
      const { deferred, settled } = keeping(4);
      const { host, onDevice } = await both(options, rows, own);
      expect(onDevice).toEqual(before);
      expect(onDevice).toEqual(host);
      // Called once by the first step, and once when the others are recorded.
      expect(deferred).toHaveBeenCalledTimes(2 * own.backbone.mixers.length);
      expect(settled).toHaveBeenCalledTimes(own.backbone.mixers.length);
    });

    it.each([3, 4, 5])("leaves a state that is kept whole after %i tokens, also when stopped there", async (tokens) => {
      using apart = await prefill(model, rows[0]);
      const [{ tokens: drawn }] = await complete(model, apart, { maxTokens: tokens, keep: true, onDevice: true });
      const { deferred } = keeping(2);
      using state = await prefill(model, rows[0]);
      for await (const { step } of generate(model, state, { keep: true, onDevice: true }))
        if (step + 1 === tokens) break;
      expect(deferred).toHaveBeenCalled();
      expect(state.tokens).toEqual([[...rows[0], ...drawn]]);
      for (const [i, tensor] of state.state.flat().entries()) {
        const [found, wanted] = await Promise.all([tensor.data(), apart.state.flat()[i].data()]);
        expect(relativeError(found, wanted)).toBeLessThan(1e-5);
      }
    });

    it("leaves mixers alone that have no such scan", async () => {
      using own = MambaLM.create({ ...sizes, variant: "diffs6mamba2" }, { device, seed: 3 });
      const { deferred } = keeping(4);
      const { host, onDevice } = await both({ maxTokens: 6 }, rows, own);
      expect(onDevice).toEqual(host);
      expect(deferred).not.toHaveBeenCalled();
    });
  });
});
