// The adaptive embedding and softmax: probabilities, the released models' empty clusters, gradients, and training.

import { AdamW, decayGroups, init, trainStep } from "@diffmamba/nn";
import { RandomStream } from "@diffmamba/random";
import { type Device, IGNORE_INDEX, reference, valueAndGrad } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelConfig } from "./config.js";
import { MambaLM } from "./model.js";
import { relativeError, taken, tinyModel } from "./tiny.testing.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const rows = [
  [3, 1, 4, 1, 5, 9, 2, 6, 5],
  [10, 0, 7, 7, 8, 2, 8, 1, 8],
];
const next = [...[1, 4, IGNORE_INDEX, 5, 9, 2, 6, 5, 3], ...[0, 7, 7, 8, IGNORE_INDEX, 8, 1, 8, 10]];

/** A model whose parameters are all away from 0. */
function shaken(config: Partial<ModelConfig>, seed = 4): MambaLM {
  const model = MambaLM.create(config, { device, dtype: "f64", seed }).eval();
  for (const [name, parameter] of model.namedParameters()) {
    const noise = init.normal(0.2);
    const values = new Float64Array(parameter.size);
    noise(values, parameter.shape, new RandomStream(seed, `shake ${name}`));
    using own = device.from(values, parameter.shape, "f64");
    parameter.addInPlace(own);
  }
  return model;
}

const targets = () => device.from(Int32Array.from(next), [2, 9], "i32");

const kinds = [
  "post-norm, adaptive",
  "adaptive of one width",
  "adaptive with empty clusters",
  "adaptive by the textbook",
];

describe.each(kinds)("%s", (name) => {
  const config = tinyModel(name);
  const isEmpty = name.endsWith("empty clusters");

  it("gives logits whose softmax is what the loss scores, but for what empty clusters take", async () => {
    using model = shaken(config);
    using tokens = model.tokens(rows);
    using wanted = targets();
    const logits = await taken(model.forward(tokens));
    const losses = await taken(model.loss(tokens, wanted, { reduction: "none" }));
    for (const [i, target] of next.entries()) {
      const row = logits.slice(i * 11, (i + 1) * 11);
      const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      if (target === IGNORE_INDEX) expect(losses[i]).toBe(0);
      else if (isEmpty) expect(losses[i]).toBeGreaterThan(total - row[target]);
      else expect(losses[i]).toBeCloseTo(total - row[target], 12);
    }
    const counted = losses.filter((_, i) => next[i] !== IGNORE_INDEX);
    const sum = counted.reduce((a, b) => a + b);
    expect((await taken(model.loss(tokens, wanted, { reduction: "sum" })))[0]).toBeCloseTo(sum, 12);
    expect((await taken(model.loss(tokens, wanted)))[0]).toBeCloseTo(sum / counted.length, 12);
  });

  it("has the gradients that central differences give, in every parameter", async () => {
    using model = shaken(config);
    using tokens = model.tokens(rows);
    using wanted = targets();
    const parameters = [...model.namedParameters()];
    const { value, gradients } = valueAndGrad(() => model.loss(tokens, wanted), model.parameters());
    value.dispose();
    const loss = async () => (await taken(model.loss(tokens, wanted)))[0];
    for (const [i, [path, parameter]] of parameters.entries()) {
      const gradient = await taken(gradients[i]);
      const values = Float64Array.from(await parameter.data());
      const picks = new RandomStream(1, path);
      // The derivative along a random direction is a sum over all elements.
      const direction = values.map((_, j) => (picks.at(j) < 0.5 ? -1 : 1));
      const shift = async (h: number) => {
        parameter.write(values.map((x, j) => x + h * direction[j]));
        return loss();
      };
      const h = 1e-4;
      const across = async (step: number) => (await shift(step)) - (await shift(-step));
      const measured = (8 * (await across(h)) - (await across(2 * h))) / (12 * h);
      parameter.write(values);
      const computed = gradient.reduce((sum, g, j) => sum + g * direction[j], 0);
      const scale = Math.max(Math.abs(measured), 1e-3);
      expect(Math.abs(computed - measured) / scale, path).toBeLessThan(1e-7);
    }
  });
});

describe("clusters", () => {
  it("are reached through the head's columns from its end", async () => {
    using model = MambaLM.create(tinyModel("post-norm, adaptive"), { device, dtype: "f64" }).eval();
    const parameters = model.namedParameters();
    const bias = parameters.get("loss.cluster_bias");
    // At the start the head is its biases, as its projection and the clusters' rows are zero.
    bias?.write(Float64Array.of(3, -2));
    using tokens = model.tokens([1]);
    const logits = await taken(model.forward(tokens));
    const mass = (from: number, to: number) => logits.slice(from, to).reduce((sum, x) => sum + Math.exp(x), 0);
    expect(Math.log(mass(4, 7))).toBeCloseTo(-2, 12);
    expect(Math.log(mass(7, 11))).toBeCloseTo(3, 12);
  });

  it("by the textbook are reached in order, have no ways to empty ones, and begin with a projection that is not zero", async () => {
    using model = MambaLM.create(tinyModel("adaptive by the textbook"), { device, dtype: "f64" }).eval();
    const parameters = model.namedParameters();
    expect(parameters.get("loss.cluster_weight")?.shape).toEqual([2, 8]);
    expect((await parameters.get("loss.out_projs.0")?.data())?.some((x) => x !== 0)).toBe(true);
    for (const name of ["loss.out_projs.0", "encoder.0.emb_layers.0.weight"])
      parameters.get(name)?.write(new Float64Array(parameters.get(name)?.size ?? 0));
    parameters.get("loss.cluster_bias")?.write(Float64Array.of(3, -2));
    using tokens = model.tokens([1]);
    const logits = await taken(model.forward(tokens));
    const mass = (from: number, to: number) => logits.slice(from, to).reduce((sum, x) => sum + Math.exp(x), 0);
    expect(Math.log(mass(4, 7))).toBeCloseTo(3, 12);
    expect(Math.log(mass(7, 11))).toBeCloseTo(-2, 12);
    const adaptive = { cutoffs: [20, 30], divValue: 1, emptyClusters: false };
    using inside = MambaLM.create({ ...tinyModel("adaptive with empty clusters"), adaptive }, { device });
    expect(inside.namedParameters().has("loss.cluster_weight")).toBe(false);
  });

  it("have first values of 0.5 / sqrt(width), and a head projection of zeros", async () => {
    const dModel = 64;
    const range = 0.5 / Math.sqrt(dModel);
    const adaptive = { cutoffs: [300, 700], divValue: 4 };
    const sizes = { vocabSize: 1500, dModel, nLayers: 1, variant: "mamba", initializerRange: range, adaptive } as const;
    using model = MambaLM.create(sizes, { device });
    const spread = async (path: string) => {
      const data = Array.from((await model.namedParameters().get(path)?.data()) ?? []);
      return Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
    };
    for (const [i, width] of [64, 16, 4].entries()) {
      const wanted = 0.5 / Math.sqrt(width);
      expect((await spread(`encoder.0.emb_layers.${i}.weight`)) / wanted).toBeCloseTo(1, 1);
      expect((await spread(`encoder.0.emb_projs.${i}`)) / range).toBeCloseTo(1, 0.7);
    }
    expect(await spread("loss.out_projs.0")).toBe(0);
    expect(await spread("loss.cluster_weight")).toBe(0);
  });
});

describe("training", () => {
  it.each(["post-norm", ...kinds])("lowers the loss of a %s model", async (name) => {
    const config = { ...tinyModel(name), initializerRange: 0.3, embeddingScale: 1 };
    using model = MambaLM.create(config, { device, seed: 2 }).train();
    using tokens = model.tokens(rows.map((row) => row.slice(0, -1)));
    using wanted = model.tokens(rows.map((row) => row.slice(1)));
    const optimizer = new AdamW(decayGroups(model, 0.01, "backbone"));
    const losses: number[] = [];
    for (let step = 0; step < 40; step++) {
      const { loss, norm } = trainStep(optimizer, [() => model.loss(tokens, wanted)], { lr: 0.02, maxNorm: 1 });
      losses.push(...(await taken(loss)));
      norm.dispose();
    }
    optimizer.dispose();
    expect(losses[0]).toBeGreaterThan(2);
    expect(losses[losses.length - 1]).toBeLessThan(0.5);
    expect(relativeError(losses.slice(0, 1), losses.slice(-1))).toBeGreaterThan(1);
  });
});
