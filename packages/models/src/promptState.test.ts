import { memoryFiles } from "@diffmamba/files/memory";
import { type Device, reference } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelConfig } from "./config.js";
import { writeSafetensors } from "./formats/index.js";
import { complete } from "./generate.js";
import { MambaLM } from "./model.js";
import { extend, prefill } from "./prefill.js";
import { PromptState } from "./promptState.js";
import { alternating as config, unevenRows as rows } from "./tiny.testing.js";

let device: Device;
let model: MambaLM;
beforeEach(() => {
  device = reference({ poison: true });
  model = MambaLM.create(config, { device, seed: 3 });
});
afterEach(() => device.dispose());

/** Every number of a state, bit for bit. */
async function bits({ state, logits, tokens }: PromptState): Promise<unknown> {
  const values: Uint8Array[] = [];
  for (const tensor of [logits, ...state.flat()]) {
    const data = await tensor.hostData();
    values.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return { values, tokens: tokens.map((row) => [...row]) };
}

describe("a state after a prompt", () => {
  it("is a value: a clone is not changed by what is done to the other", async () => {
    using state = await prefill(model, rows);
    const before = await bits(state);
    using copy = state.clone();
    await extend(model, state, [[1], [2, 3], [4]]);
    expect(await bits(copy)).toEqual(before);
    expect(state.lengths).toEqual([6, 4, 2]);
    expect(copy.lengths).toEqual([5, 2, 1]);
    expect(await bits(state)).not.toEqual(before);
  });

  it("is the same whether it was read at once or bit by bit", async () => {
    using whole = await prefill(model, rows);
    using parts = await prefill(model, [[3], [9, 2], [6]]);
    const more = parts.slice([0]);
    await extend(model, more, [1, 4, 1, 5]);
    using own = whole.slice([0]);
    for (const [i, tensor] of [own.logits, ...own.state.flat()].entries()) {
      const other = [more.logits, ...more.state.flat()][i];
      const difference = tensor.sub(other).square().mean();
      const size = tensor.square().mean();
      expect(Math.sqrt((await difference.item()) / (await size.item()))).toBeLessThan(1e-5);
    }
    more.dispose();
  });

  it("is cut into rows, in any order and several times", async () => {
    using state = await prefill(model, rows);
    using cut = state.slice([2, 0, 2]);
    expect(cut.tokens).toEqual([rows[2], rows[0], rows[2]]);
    using again = cut.slice([1]);
    using alone = state.slice([0]);
    expect(await bits(again)).toEqual(await bits(alone));
    expect(() => state.slice([3])).toThrow("slice: there is no row 3; the state has 3, counted from 0");
    expect(() => state.slice([])).toThrow("slice: no row was named");
  });

  it("gives the same continuation after it was saved and loaded, bit for bit", async () => {
    const files = memoryFiles();
    using state = await prefill(model, rows);
    await state.save(files, "prompt.safetensors");
    const options = { maxTokens: 12, temperature: 1.1, seed: 5, repetitionPenalty: 1.3, logprobs: true };
    const expected = await complete(model, state.clone(), options);
    const loaded = await PromptState.load(files, "prompt.safetensors", model);
    expect(await bits(loaded)).toEqual(await bits(state));
    expect(await complete(model, loaded, options)).toEqual(expected);
    expect(await complete(model, rows, options)).toEqual(expected);
    expect((await files.list(".")).map(({ name }) => name)).toEqual(["prompt.safetensors"]);
  });

  it("keeps f64 in a model of f64", async () => {
    using wide = MambaLM.create(config, { device, dtype: "f64", seed: 3 });
    const files = memoryFiles();
    using state = await prefill(wide, rows);
    expect(state.logits.dtype).toBe("f64");
    await state.save(files, "p");
    using loaded = await PromptState.load(files, "p", wide);
    expect(await bits(loaded)).toEqual(await bits(state));
    await expect(PromptState.load(files, "p", model)).rejects.toThrow(/p: "logits" is f64 .* the model has f32/);
  });

  it("can be given to training as an initial state, with gradients", async () => {
    using state = await prefill(model, rows);
    using loss = model.loss(model.tokens([[1], [2], [3]]), model.tokens([[4], [5], [6]]), {
      initialState: state.state,
    });
    using whole = model.forward(model.tokens([...rows[0], 1]));
    using reference = model.loss(model.tokens([1]), model.tokens([4]), { initialState: state.slice([0]).state });
    const last = [...(await whole.data())].slice(-26);
    const nats = Math.log(last.reduce((sum, x) => sum + Math.exp(x), 0)) - last[4];
    expect(await reference.item()).toBeCloseTo(nats, 4);
    expect(await loss.item()).toBeGreaterThan(0);
  });

  it("leaves nothing behind", async () => {
    const before = device.memory().tensors;
    const files = memoryFiles();
    const state = await prefill(model, rows);
    await state.save(files, "p");
    for (const value of [state.slice([1, 1]), state.clone(), await PromptState.load(files, "p", model), state]) {
      value.dispose();
    }
    await expect(PromptState.load(files, "none", model)).rejects.toThrow("none");
    using other = MambaLM.create({ ...config, dState: 4 }, { device });
    const own = other.parameters().length;
    await expect(PromptState.load(files, "p", other)).rejects.toThrow();
    expect(device.memory().tensors).toBe(before + own + 1);
  });
});

describe("a file that is no state of this model", () => {
  it("is named, with what is wrong", async () => {
    const files = memoryFiles();
    using state = await prefill(model, rows);
    await state.save(files, "p");
    const load = (sizes: Partial<ModelConfig>, path = "p") => {
      const other = MambaLM.create({ ...config, ...sizes }, { device });
      return PromptState.load(files, path, other).finally(() => other.dispose());
    };
    await expect(load({ dState: 4 })).rejects.toThrow(
      /p: "state\.0\.\d" is f32 \(.*\); the model has f32 \(.*\)\. Is it/,
    );
    await expect(load({ vocabSize: 30 })).rejects.toThrow('p: "logits" is f32 (3, 26); the model has f32 (3, 30)');
    await expect(load({ nLayers: 2 })).rejects.toThrow('p: has a tensor "state.2.0" that the model has no place for');
    await expect(load({ nLayers: 4 })).rejects.toThrow('p: has no tensor "state.3.0"');
    await expect(load({}, "none")).rejects.toThrow("none: no such file");

    await writeSafetensors(files, "weights", [["w", { dtype: "f32", shape: [1], data: Float32Array.of(1) }]]);
    await expect(load({}, "weights")).rejects.toThrow("weights: holds no state after a prompt");
  });

  it("is named where it is cut short, or where rows and tokens disagree", async () => {
    const files = memoryFiles();
    using state = await prefill(model, rows);
    await state.save(files, "p");
    const bytes = await files.read("p");
    await files.truncate("p", bytes.length - 4);
    await expect(PromptState.load(files, "p", model)).rejects.toThrow(/^p: /);
    const ints = (...data: number[]) => ({ dtype: "i32" as const, shape: [data.length], data: Int32Array.from(data) });
    const metadata = { format: "diffmamba.prompt" };
    for (const lengths of [[2], [9], [-1, 4], []]) {
      await writeSafetensors(
        files,
        "q",
        [
          ["lengths", ints(...lengths)],
          ["tokens", ints(1, 2, 3)],
        ],
        { metadata },
      );
      await expect(PromptState.load(files, "q", model)).rejects.toThrow("q: holds 3 tokens, but rows of");
    }
  });
});
