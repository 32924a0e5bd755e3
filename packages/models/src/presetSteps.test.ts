// One training step of every preset, reduced in width and depth: its mixers, norms, dropouts, vocabulary and decay all take part.

import { AdamW, decayGroups, trainStep } from "@diffmamba/nn";
import { type Device, reference } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ModelConfig } from "./config.js";
import { MambaLM } from "./model.js";
import { preset, presetNames } from "./presets.js";
import { taken } from "./tiny.testing.js";

let device: Device;
beforeAll(() => {
  device = reference({ poison: true });
});
afterAll(() => device.dispose());

const width = 16;

/** The same model in small: two blocks, a width of 16, the heads' share of it, the clusters' share of 60 words. */
function reduced(config: ModelConfig): Partial<ModelConfig> {
  const { dModel, headDim, adaptive, vocabSize, nLayers } = config;
  const isLarge = vocabSize > 1000;
  const clusters = adaptive && {
    ...adaptive,
    divValue: Math.min(2, adaptive.divValue),
    cutoffs: isLarge ? [10, 20, 40] : adaptive.cutoffs,
  };
  return {
    ...config,
    dModel: width,
    nLayers: Math.min(2, nLayers),
    dState: 4,
    headDim: Math.max(2, 2 * Math.round((headDim / dModel) * (width / 2))),
    chunkSize: 4,
    vocabSize: isLarge ? 60 : vocabSize,
    ...(config.residual === "post" && { initializerRange: 0.5 * width ** -0.5, embeddingScale: width ** 0.5 }),
    adaptive: clusters,
  };
}

const rows = [
  [3, 1, 4, 1, 5, 9, 2, 6, 5],
  [10, 0, 7, 7, 8, 2, 8, 1, 8],
];

describe("one step of each preset in small", () => {
  it.each(presetNames)("%s", async (name) => {
    const config = reduced(preset(name));
    using model = MambaLM.create(config, { device, seed: 1 }).train();
    const { vocabSize } = model.config;
    // Where words are many, tokens of every cluster.
    const within = rows.map((row) => row.map((token) => (vocabSize === 60 ? 5 * token : token) % vocabSize));
    using tokens = model.tokens(within.map((row) => row.slice(0, -1)));
    using targets = model.tokens(within.map((row) => row.slice(1)));
    const before = device.memory().tensors;
    const optimizer = new AdamW(decayGroups(model, 0.1, config.residual === "post" ? "backbone" : "mamba"));
    const values = async () =>
      Promise.all(model.parameters().map(async (parameter) => Array.from(await parameter.data())));
    const old = await values();
    const { loss, norm } = trainStep(optimizer, [() => model.loss(tokens, targets)], { lr: 1e-3, maxNorm: 1 });
    const [nats] = await taken(loss);
    expect(nats).toBeGreaterThan(0.2 * Math.log(vocabSize));
    expect(nats).toBeLessThan(3 * Math.log(vocabSize) + 3);
    expect((await taken(norm))[0]).toBeGreaterThan(0);
    const now = await values();
    const names = [...model.namedParameters().keys()];
    const still = names.filter((_, i) => now[i].every((x, j) => x === old[i][j]));
    // The ways to clusters are zero at the start, and have no gradient until the head's projection, also zero then, has moved.
    const waits = config.adaptive !== null && (config.adaptive?.divValue ?? 1) > 1 ? ["loss.cluster_weight"] : [];
    expect(still).toEqual(waits);
    expect(now.flat().every(Number.isFinite)).toBe(true);
    optimizer.dispose();
    expect(device.memory().tensors).toBe(before);
  });
});
