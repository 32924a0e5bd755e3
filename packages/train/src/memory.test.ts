// Layer: train, tests of the estimate: it is what the reference backend then really takes.
import { AdamW, Build, type Clock, decayGroups, Embedding, FeedForward, Module } from "@diffmamba/nn";
import {
  currentDevice,
  type Device,
  reference,
  setCurrentDevice,
  softmaxCrossEntropy,
  type Tensor,
} from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { Bigram } from "./bigram.testing.js";
import { abandon, launch } from "./launched.js";
import { estimateMemory } from "./memory.js";
import type { TrainableModel } from "./model.js";

const device = reference();
afterAll(() => device.dispose());

class Wide extends Module implements TrainableModel {
  readonly embedding: Embedding;
  readonly hidden: FeedForward;
  readonly clock: Clock;
  constructor(on: Device) {
    super();
    const build = new Build({ device: on });
    this.embedding = this.register("e", new Embedding({ count: 50, dim: 16 }, build.at("e")));
    this.hidden = this.register("h", new FeedForward({ dModel: 16, dropout: 0.1 }, build.at("h")));
    this.clock = build.clock;
  }
  loss(tokens: Tensor, targets: Tensor): Tensor {
    return softmaxCrossEntropy(this.hidden.forward(this.embedding.forward(tokens)), targets);
  }
  lambdas() {
    return [];
  }
  async save() {}
}

/** What a step of the real thing takes at its fullest moment, from nothing. */
async function measured(
  build: (device: Device) => TrainableModel,
  batchSize: number,
  length: number,
  microBatches = 1,
) {
  await using own = reference();
  const model = build(own);
  const optimizer = new AdamW(decayGroups(model, 0.1));
  const size = batchSize * length;
  const batch = { tokens: new Int32Array(size), targets: new Int32Array(size), batchSize, length, epoch: 0, step: 0 };
  own.resetPeak();
  const batches = new Array(microBatches).fill(batch);
  abandon(launch(model, optimizer, batches, { step: 1, lr: 0.1, maxNorm: 1, withLambdas: false }));
  return own.memory().peakBytes;
}

describe("estimateMemory", () => {
  it.each([
    [4, 8, 1],
    [16, 64, 1],
    [4, 8, 3],
  ])("of %i rows of %i tokens, %i micro-batches, is what a step takes", async (batchSize, length, microBatches) => {
    for (const build of [(on: Device) => new Bigram({ device: on }), (on: Device) => new Wide(on)]) {
      const question = {
        build,
        batchSize,
        length,
        microBatches,
        groups: (model: TrainableModel) => decayGroups(model, 0.1),
      };
      const { parameters, gradients, optimizer, activations, total } = await estimateMemory(question);
      expect(total).toBe(await measured(build, batchSize, length, microBatches));
      expect(parameters + gradients + optimizer + activations).toBe(total);
      expect(activations).toBeGreaterThan(0);
    }
  });

  it("tells its parts", async () => {
    const build = (on: Device) => new Wide(on);
    const weights = 4 * (50 * 16 + 16 * 64 + 64 + 64 * 16 + 16);
    const small = await estimateMemory({ build, batchSize: 1, length: 1 });
    expect(small.parameters).toBe(weights + 4); // and the clock
    expect(small.gradients).toBe(weights);
    expect(small.optimizer).toBe(2 * weights + 8); // and the rate and the count of one group
    const large = await estimateMemory({ build, batchSize: 8, length: 512 });
    expect(large.activations).toBeGreaterThan(4 * 8 * 512 * 64 * 4);
  });

  it("leaves the current device, and refuses a model made elsewhere", async () => {
    const elsewhere = new Bigram({ device });
    setCurrentDevice(device);
    await estimateMemory({ build: (on) => new Bigram({ device: on }), batchSize: 1, length: 1 });
    expect(currentDevice()).toBe(device);
    await expect(estimateMemory({ build: () => elsewhere, batchSize: 1, length: 1 })).rejects.toThrow(
      "estimateMemory: build() made the model on reference; it must use the device that it is given.",
    );
    elsewhere.dispose();
  });
});
