// States of scans kept in 16 bits: a generation is that of a loop which rounds them by hand, near that with states in f32, and the type
// stays through everything that can be done with a state.

import { memoryFiles } from "@diffmamba/files/memory";
import type { StateDType } from "@diffmamba/ssm";
import { type Device, noGrad, reference, scope, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelState } from "./backbone.js";
import type { ModelConfig } from "./config.js";
import { complete } from "./generate.js";
import { MambaLM } from "./model.js";
import { extend, prefill } from "./prefill.js";
import { PromptState } from "./promptState.js";
import { alternating, relativeError, unevenRows as rows, taken, tinyModels } from "./tiny.testing.js";

const narrowTypes = ["bf16", "f16"] as const;
const text = [3, 1, 4, 1, 5, 9, 2, 6];

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

/** A model whose states are of some size, so that their rounding shows. */
function create(config: Partial<ModelConfig>): MambaLM {
  return MambaLM.create(config, { device, seed: 3 }).eval();
}

const typesOf = (state: ModelState): string[] => state.flat().map(({ dtype }) => dtype);

/** Logits after each token of the text, read one by one. `after` may change the states. */
async function stepwise(model: MambaLM, type: StateDType, after: (state: ModelState) => void = () => {}) {
  const state = model.initialState(1, type);
  const logits: number[][] = [];
  for (const token of text) {
    using tokens = model.tokens([token]);
    logits.push(await taken(model.advance(tokens, state)));
    after(state);
  }
  return { logits, state };
}

describe.each(tinyModels)("%s", (_, config) => {
  it.each(narrowTypes)("has with states in %s the logits of a loop that rounds them by hand", async (type) => {
    const model = create({ ...config, dropout: 0 });
    const narrow = await stepwise(model, type);
    const types = typesOf(narrow.state);
    expect(new Set(types)).toEqual(new Set(["f32", type]));
    const roundByHand = (state: ModelState) =>
      noGrad(() =>
        scope(() => {
          for (const [i, tensor] of state.flat().entries()) if (types[i] === type) tensor.assign(tensor.cast(type));
        }),
      );
    const byHand = await stepwise(model, "f32", roundByHand);
    expect(narrow.logits).toEqual(byHand.logits);
    const exact = await stepwise(model, "f32");
    const error = relativeError(narrow.logits.flat(), exact.logits.flat());
    expect(error).toBeLessThan(type === "bf16" ? 0.02 : 0.003);
    expect(error).toBeGreaterThan(0);
  });
});

describe("generation with states in 16 bits", () => {
  it.each(narrowTypes)("is the same on the device and off it, for rows of any lengths, in %s", async (stateDtype) => {
    const model = create(alternating);
    const options = { stateDtype, maxTokens: 10, temperature: 0 };
    const here = await complete(model, rows, options);
    expect(await complete(model, rows, { ...options, onDevice: true })).toEqual(here);
    for (const [i, row] of rows.entries()) expect(await complete(model, row, options)).toEqual([here[i]]);
    using state = await prefill(model, rows, { stateDtype });
    const kept = await complete(model, state, { maxTokens: 10, temperature: 0, keep: true });
    expect(kept).toEqual(here);
    expect(typesOf(state.state)).toEqual(typesOf(model.initialState(1, stateDtype)));
  });

  it("keeps the type through clones, cuts, files and further tokens", async () => {
    const model = create(alternating);
    const files = memoryFiles();
    using state = await prefill(model, rows, { stateDtype: "bf16" });
    using exact = await prefill(model, rows);
    const bytes = ({ state }: PromptState) => state.flat().reduce((sum, { storage }) => sum + storage.bytes, 0);
    expect(bytes(state)).toBeLessThan(0.75 * bytes(exact));
    await state.save(files, "state.safetensors");
    using loaded = await PromptState.load(files, "state.safetensors", model);
    using copy = state.clone();
    using cut = state.slice([2, 0]);
    const types = typesOf(state.state);
    expect(types).toContain("bf16");
    const bits = (tensors: readonly Tensor[]) => Promise.all(tensors.map((tensor) => tensor.hostData()));
    const own = await bits(state.state.flat());
    for (const other of [loaded, copy]) {
      expect(typesOf(other.state)).toEqual(types);
      expect(await bits(other.state.flat())).toEqual(own);
    }
    expect(typesOf(cut.state)).toEqual(types);
    for (const own of [state, loaded]) await extend(model, own, [[1, 2], [3], [4, 5, 6]]);
    expect(typesOf(state.state)).toEqual(types);
    expect(await bits(loaded.state.flat())).toEqual(await bits(state.state.flat()));
  });

  it("refuses another type, and one beside a state that has its own", async () => {
    const model = create(alternating);
    const wrong = "f64" as StateDType;
    const message = 'stateDtype is f64; it must be "f32", "bf16" or "f16".';
    expect(() => model.generate([1], { stateDtype: wrong })).toThrow(`generate: ${message}`);
    await expect(model.prefill([1], { stateDtype: wrong })).rejects.toThrow(`prefill: ${message}`);
    using state = await model.prefill([1]);
    expect(() => model.generate(state, { stateDtype: "bf16" })).toThrow(
      "a prompt state has its own. Give it to prefill.",
    );
  });
});
