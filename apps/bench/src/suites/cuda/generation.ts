// Layer: apps/bench, suites of the GPU. Generation as a user has it, token by token, the likeliest one, taken on the device: ms a token
// for one row and for many, beside a copy of the bytes of weights and states that each token reads, and beside PyTorch. Many rows also with
// their states kept in bf16, as mamba_ssm keeps those of a model in bf16.
// Knows models. Knows no text.
import { generate, type MambaLM, prefill } from "@diffmamba/models";
import type { StateDType } from "@diffmamba/ssm";
import { type Device, scope } from "@diffmamba/tensor";
import { integers, onDevice } from "../../data.js";
import { pytorchPeers } from "../../peers/pytorch.js";
import { type Case, contest, type Entry, type Settings } from "../../race.js";
import { deviceCopy } from "./ceilings.js";
import { type BenchModel, benchModel, benchModels, describeBench } from "./models.js";

/** Tokens follow each other without a wait, each ordered before the one before is read: a sample is of many. */
const SAMPLE_SECONDS = 0.05;

/** Bytes that a token must move: weights, and the states of all rows, which it also writes where tokens are not kept beside them. */
function bytesOf(model: MambaLM, rows: number, stateDtype: StateDType): number {
  const { device } = model;
  const weights = model.parameters().reduce((sum, { storage }) => sum + storage.bytes, 0);
  return scope(() => {
    const count = device.zeros([], "i32");
    let states = 0;
    for (const mixer of model.backbone.mixers) {
      const state = mixer.initialState(rows, stateDtype);
      const beside = mixer.defer(state, count);
      const bytes = state.reduce((sum, { storage }) => sum + storage.bytes, 0);
      states += beside === state ? 2 * bytes : bytes;
      for (const tensor of new Set([...state, ...beside])) tensor.dispose();
    }
    return weights + states;
  });
}

function generationEntry(
  device: Device,
  which: BenchModel,
  rows: number,
  stateDtype: StateDType,
  { prompt, vocabSize }: Settings,
): Entry {
  const model = benchModel(which, { device, dtype: "bf16" }).eval();
  const begin = async () => {
    const tokens = Array.from({ length: rows }, (_, i) => integers(`row ${i}`, prompt, vocabSize));
    const state = await prefill(model, tokens, { stateDtype });
    return generate(model, state, { maxTokens: Number.POSITIVE_INFINITY, onDevice: true, temperature: 0 });
  };
  let steps: ReturnType<typeof generate> | undefined;
  const entry = onDevice(device, {
    work: { "ms/token": 1 },
    holds: [],
    async run() {
      steps ??= await begin();
      await steps.next();
    },
  });
  return {
    ...entry,
    async verify() {
      await steps?.return();
      steps = undefined;
    },
    dispose: () => model.dispose(),
  };
}

function generationCase(which: BenchModel, rows: number, stateDtype: StateDType, settings: Settings): Case {
  const name = `generate ${which.name}`;
  const states = stateDtype === "f32" ? "" : `, states ${stateDtype}`;
  const shape = `${describeBench(which)}, batch ${rows}, prompt ${settings.prompt}, bf16${states}`;
  const timed = contest({
    ...{ name, shape, unit: "ms/token" },
    ours: (device) => generationEntry(device, which, rows, stateDtype, settings),
    peers: pytorchPeers(name, shape),
    ceilings(device) {
      using model = benchModel(which, { device, dtype: "bf16" });
      return [deviceCopy(device, bytesOf(model, rows, stateDtype))];
    },
  });
  return { ...timed, sampleSeconds: SAMPLE_SECONDS };
}

export function generationCases(settings: Settings): Case[] {
  const { mamba, mamba2, large } = benchModels(settings);
  return [mamba, mamba2, large].flatMap((which) => [
    generationCase(which, 1, "f32", settings),
    generationCase(which, settings.rows, "f32", settings),
    generationCase(which, settings.rows, "bf16", settings),
  ]);
}
