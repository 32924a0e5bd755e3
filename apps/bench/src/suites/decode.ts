// Layer: apps/bench, suites. `decode`: greedy generation, one token at a time from a recurrent state.
// Knows models. Knows no tokenizer and no sampling.
import type { MambaLM } from "@diffmamba/models";
import { type Device, scope } from "@diffmamba/tensor";
import { onDevice } from "../data.js";
import { memoryCopy } from "../peers/machine.js";
import { type Case, contest, type Entry, type Settings, type Suite } from "../race.js";
import { createModel, describeModel, modelSettings, quickModelSettings, type Variant } from "./languageModel.js";

const F32_BYTES = 4;

/** One token through a model that it takes over, its greedy successor read back and fed in again: what a user waits for. */
export function decodeOn(device: Device, model: MambaLM, batch: number): Entry {
  const state = model.initialState(batch);
  const token = device.zeros([batch, 1], "i32");
  const entry = onDevice(device, {
    work: { "ms/token": 1 },
    holds: [model, token, ...state.flat()],
    async run() {
      using next = scope(() => model.advance(token, state).argmax());
      token.write(await next.hostData());
    },
  });
  return {
    ...entry,
    async result() {
      using prompt = device.zeros([batch, 1], "i32");
      const fresh = model.initialState(batch);
      using logits = model.advance(prompt, fresh);
      for (const tensor of fresh.flat()) tensor.dispose();
      return [await logits.data()];
    },
  };
}

function decodeCase(variant: Variant, settings: Settings): Case {
  return contest({
    name: `${variant} decode`,
    shape: `${describeModel(settings)}, batch ${settings.batch}`,
    unit: "ms/token",
    ours: (device) => decodeOn(device, createModel(device, variant, settings).eval(), settings.batch),
    // Every weight is read once a token, whatever the batch.
    ceilings(device) {
      using model = createModel(device, variant, settings);
      return [memoryCopy(F32_BYTES * model.parameterCount())];
    },
  });
}

export const decode: Suite = {
  name: "decode",
  summary:
    "greedy decoding of a small model, one token at a time: ms a token, beside a copy of as many bytes as the weights",
  settings: { ...modelSettings, batch: 1 },
  quick: quickModelSettings,
  cases: (settings) => [decodeCase("mamba2", settings), decodeCase("diffmamba2", settings)],
};
