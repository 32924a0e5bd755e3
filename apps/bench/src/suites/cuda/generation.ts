// Layer: apps/bench, suites of the GPU. Generation as a user has it, token by token, the likeliest one, taken on the device: ms a token
// for one row and for many, beside a copy of the bytes of weights and states that each token reads, and beside PyTorch.
// Knows models. Knows no text.
import { generate, type MambaLM, prefill } from "@diffmamba/models";
import type { Device } from "@diffmamba/tensor";
import { integers, onDevice } from "../../data.js";
import { pytorchPeers } from "../../peers/pytorch.js";
import { type Case, contest, type Entry, type Settings } from "../../race.js";
import { deviceCopy } from "./ceilings.js";
import { type BenchModel, benchModel, benchModels, describeBench } from "./models.js";

/** Bytes that a token must read: weights, and the states of all rows, which it also writes. */
function bytesOf(model: MambaLM, rows: number): number {
  const weights = model.parameters().reduce((sum, { storage }) => sum + storage.bytes, 0);
  const state = model.initialState(1).flat();
  const states = state.reduce((sum, { storage }) => sum + storage.bytes, 0);
  for (const tensor of state) tensor.dispose();
  return weights + 2 * rows * states;
}

function generationEntry(device: Device, which: BenchModel, rows: number, { prompt, vocabSize }: Settings): Entry {
  const model = benchModel(which, { device, dtype: "bf16" }).eval();
  const begin = async () => {
    const tokens = Array.from({ length: rows }, (_, i) => integers(`row ${i}`, prompt, vocabSize));
    const state = await prefill(model, tokens);
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

function generationCase(which: BenchModel, rows: number, settings: Settings): Case {
  const name = `generate ${which.name}`;
  const shape = `${describeBench(which)}, batch ${rows}, prompt ${settings.prompt}, bf16`;
  return contest({
    ...{ name, shape, unit: "ms/token" },
    ours: (device) => generationEntry(device, which, rows, settings),
    peers: pytorchPeers(name, shape),
    ceilings(device) {
      using model = benchModel(which, { device, dtype: "bf16" });
      return [deviceCopy(device, bytesOf(model, rows))];
    },
  });
}

export function generationCases(settings: Settings): Case[] {
  const { mamba, mamba2, large } = benchModels(settings);
  return [mamba, mamba2, large].flatMap((which) =>
    [1, settings.rows].map((rows) => generationCase(which, rows, settings)),
  );
}
