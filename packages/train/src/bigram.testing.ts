// Layer: train, for tests. The smallest model that can be trained (the next token from this one, through a narrow layer with dropout
// and one "lambda"), with what a run needs around it.

import { arraySource, type Batches, randomBatches } from "@diffmamba/datasets";
import { type FileSystem, joinPath } from "@diffmamba/files";
import { MambaLM, type ModelConfig, writeSafetensors } from "@diffmamba/models";
import {
  Build,
  type BuildOptions,
  type Clock,
  Dropout,
  decayGroups,
  Embedding,
  init,
  Linear,
  Module,
  type Parameter,
  schedules,
} from "@diffmamba/nn";
import { type Device, softmaxCrossEntropy, type Tensor } from "@diffmamba/tensor";
import { probe } from "./launched.js";
import type { LockHost } from "./lock.js";
import type { Sample } from "./metrics.js";
import type { Lambda, TrainableModel } from "./model.js";
import type { TrainerOptions } from "./options.js";

export const VOCABULARY = 11;
const WIDTH = 6;

/** Sigmoid-gated scale of the logits: stands for a differential layer's lambda. */
class Gate extends Module {
  readonly weight: Parameter;
  constructor(build: Build) {
    super();
    this.weight = this.register("weight", build.parameter("weight", [], init.constant(0.5)));
  }
}

export class Bigram extends Module implements TrainableModel {
  readonly embedding: Embedding;
  readonly head: Linear;
  readonly dropout: Dropout;
  readonly gate: Gate;
  readonly clock: Clock;

  constructor(options: BuildOptions) {
    super();
    const build = new Build(options);
    this.embedding = this.register(
      "embedding",
      new Embedding({ count: VOCABULARY, dim: WIDTH }, build.at("embedding")),
    );
    this.dropout = this.register("drop", new Dropout(0.2, build.at("drop")));
    this.head = this.register("head", new Linear({ inFeatures: WIDTH, outFeatures: VOCABULARY }, build.at("head")));
    this.gate = this.register("gate", new Gate(build.at("gate")));
    this.clock = build.clock;
  }

  loss(tokens: Tensor, targets: Tensor): Tensor {
    const hidden = this.dropout.forward(this.embedding.forward(tokens));
    return softmaxCrossEntropy(this.head.forward(hidden).mul(this.gate.weight), targets);
  }

  /** The parameter itself, as a model may give it. */
  lambdas(): Lambda[] {
    return [{ layer: 0, value: this.gate.weight }];
  }

  async save(files: FileSystem, folder: string): Promise<void> {
    const writer = await files.writer(joinPath(folder, "config.json"));
    await writer.write(new TextEncoder().encode('{ "model_type": "bigram" }\n'));
    await writer.close();
    await writeSafetensors(files, joinPath(folder, "model.safetensors"), await this.stateDict());
  }

  override dispose(): void {
    super.dispose();
    this.clock.step.dispose();
  }
}

/** A text of 2,000 tokens in which each mostly follows from the one before. */
export function bigramData(seed = 3): Batches {
  const ids = new Int32Array(2000);
  let noise = 12345;
  for (let i = 1; i < ids.length; i++) {
    noise = (Math.imul(noise, 1103515245) + 12345) >>> 0;
    ids[i] = noise % 5 === 0 ? (noise >>> 8) % VOCABULARY : (ids[i - 1] * 3 + 1) % VOCABULARY;
  }
  return randomBatches(arraySource(ids, { name: "bigrams" }), { batchSize: 4, length: 8, seed });
}

/** A process that lives until it is told to die. */
export function testHost(instance: string, alive: Set<string> = new Set([instance])): LockHost {
  return { pid: 4242, host: "test", instance, settleMs: 1, isAlive: (holder) => alive.has(holder.instance) };
}

/** A clock that goes one millisecond on at each look. */
export function testClock(): () => number {
  let time = 0;
  return () => time++;
}

/** Everything that a small run of a model wants; `change` overrides. */
export function runOf<Model extends TrainableModel>(
  model: Model,
  files: FileSystem,
  change: Partial<TrainerOptions> = {},
): TrainerOptions & { readonly model: Model } {
  const sample = async ({ step }: { readonly step: number }): Promise<Sample> => ({ text: `text of step ${step}` });
  return {
    groups: decayGroups(model, 0.1),
    schedule: schedules.constant(0.05, { warmup: 3 }),
    steps: 6,
    data: bigramData(),
    microBatches: 2,
    maxNorm: 1,
    files,
    folder: "run",
    settings: { model: { width: WIDTH }, seed: 7 },
    evaluate: async () => ({ loss: await heldOut(model), tokens: 63 }),
    evaluateEvery: 3,
    sample,
    sampleEvery: 4,
    checkpointEvery: 2,
    lambdaEvery: 2,
    host: testHost("one"),
    now: testClock(),
    ...change,
    model,
  };
}

/** A run of bigrams. The model is the caller's to dispose of. */
export function bigramRun(device: Device, files: FileSystem, change: Partial<TrainerOptions> = {}) {
  return runOf(new Bigram({ device, seed: 7 }), files, change);
}

/** A run of a small differential Mamba-2 with dropout, the real thing. The model is the caller's to dispose of. */
export function mambaRun(
  device: Device,
  files: FileSystem,
  change: Partial<TrainerOptions> = {},
  build: BuildOptions = {},
) {
  const config: Partial<ModelConfig> = { vocabSize: VOCABULARY, dModel: 16, nLayers: 2, variant: "diffmamba2" };
  const sizes: Partial<ModelConfig> = { dState: 4, headDim: 8, chunkSize: 4, dropout: 0.1 };
  return runOf(MambaLM.create({ ...config, ...sizes }, { device, seed: 7, ...build }), files, change);
}

async function heldOut(model: TrainableModel): Promise<number> {
  const batch = await bigramData(99).nextBatch();
  if (batch === undefined) throw new Error("the data never ends");
  return probe(model, batch);
}
