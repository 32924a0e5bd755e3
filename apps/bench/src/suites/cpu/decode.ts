// Layer: apps/bench, suites of the CPU backend. One-token decoding of a Mamba-2 of the size of the published 130M one, its weights in
// f32 and in bf16, beside reading as many bytes. Knows models. Knows no kernel.
import { generate, MambaLM } from "@diffmamba/models";
import type { Device } from "@diffmamba/tensor";
import { onDevice, uniform } from "../../data.js";
import { memoryRead } from "../../peers/limits.js";
import { type Case, contest, type Entry, type Settings } from "../../race.js";
import { describeModel } from "../languageModel.js";
import { onThreads } from "./threads.js";

export type StoredType = "f32" | "bf16";

const elementBytes: Readonly<Record<StoredType, number>> = { f32: 4, bf16: 2 };

export function sizesOf({ wide, wideLayers, wideState, wideVocab, headDim, expand, chunkSize }: Settings) {
  return { dModel: wide, nLayers: wideLayers, dState: wideState, vocabSize: wideVocab, headDim, expand, chunkSize };
}

/** A model with numbers in it that are quick to draw and keep its activations finite: matrices small, the rest near 1. */
export function createLarge(device: Device, settings: Settings, dtype: StoredType): MambaLM {
  const model = MambaLM.create({ ...sizesOf(settings), variant: "mamba2" }, { device, dtype, draw: false }).eval();
  for (const [i, parameter] of model.parameters().entries()) {
    const [low, high] = parameter.rank > 1 ? [-0.05, 0.05] : [0.5, 1];
    using values = device.from(uniform(`parameter ${i}`, parameter.size, low, high), parameter.shape, parameter.dtype);
    parameter.assign(values);
  }
  return model;
}

/** Greedy generation by a model that it takes over, a token at a time, as a user of `generate` gets them. */
export function generateOn(device: Device, model: MambaLM): Entry {
  const steps = generate(model, [0], { maxTokens: Number.POSITIVE_INFINITY, temperature: 0 });
  let last = -1;
  const entry = onDevice(device, {
    work: { "ms/token": 1 },
    holds: [model],
    async run() {
      const { value } = await steps.next();
      last = value?.tokens[0] ?? -1;
    },
  });
  return {
    ...entry,
    async verify() {
      if (last < 0) throw new Error("no token came while decoding was timed");
    },
    async dispose() {
      await steps.return();
      await entry.dispose?.();
    },
  };
}

/** Bytes of the weights: each is read once a token, the embedding as the head. */
export function weightBytes(settings: Settings, dtype: StoredType): number {
  const { wide, wideLayers, wideState, wideVocab, headDim } = settings;
  const inner = 2 * wide;
  const columns = 2 * inner + 2 * wideState + Math.ceil(inner / headDim);
  return elementBytes[dtype] * wide * (wideVocab + wideLayers * (columns + inner));
}

function decodeCase(dtype: StoredType, settings: Settings, threads: number): Case {
  return contest({
    name: `mamba2 decode ${dtype}`,
    shape: `${describeModel(sizesOf(settings))}, batch 1`,
    unit: "ms/token",
    ours: (device) => generateOn(device, createLarge(device, settings, dtype)),
    peers: [memoryRead(weightBytes(settings, dtype), threads)],
  });
}

export function largeDecodeCases(settings: Settings, threads: readonly number[]): Case[] {
  return threads.flatMap((count) =>
    (["f32", "bf16"] as const).map((dtype) => ({
      ...onThreads(count, decodeCase(dtype, settings, count)),
      patience: 3,
    })),
  );
}
