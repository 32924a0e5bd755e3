// Layer: apps/playground, worker. One of the two models: its trainer, which takes a step when its turn comes, and what it tells.
// Knows the training loop, evaluation and generation. Knows no device by name and no page.

import { type Batches, randomBatches } from "@diffmamba/datasets";
import { evaluate } from "@diffmamba/eval";
import type { FileSystem } from "@diffmamba/files";
import { generate, MambaLM, type ModelConfig, modelConfig } from "@diffmamba/models";
import { decayGroups } from "@diffmamba/nn";
import type { Device } from "@diffmamba/tensor";
import { saveTokenizer } from "@diffmamba/tokenizer";
import {
  type Evaluation,
  type RunResult,
  resolveCheckpoint,
  type Sample,
  type TrainEvent,
  Trainer,
} from "@diffmamba/train";
import type { Event, Contender as Name } from "../protocol.js";
import { type RunSettings, rateAt } from "../settings.js";
import type { Corpus } from "./corpus.js";
import type { Turns } from "./turns.js";

const variants = { vanilla: "mamba2", differential: "diffmamba2" } as const;

/** The configuration of a model of the run. @throws ConfigError */
export function configOf(name: Name, settings: RunSettings, vocabSize: number): ModelConfig {
  const { layers, width, state, headDim, length } = settings;
  return modelConfig({
    variant: variants[name],
    vocabSize,
    dModel: width,
    nLayers: layers,
    dState: state,
    headDim,
    chunkSize: Math.min(64, length),
    lambda: "scalar",
  });
}

export interface ContenderOptions {
  readonly name: Name;
  readonly settings: RunSettings;
  readonly corpus: Corpus;
  readonly files: FileSystem;
  readonly post: (event: Event) => void;
}

/** What share the newest turn has in the shown speed. */
const newest = 0.2;
const sampleTemperature = 0.7;

export class Contender {
  readonly config: ModelConfig;
  /** The folder of its run. */
  readonly folder: string;
  /** Steps whose numbers have been read. */
  step = 0;
  /** Steps of the last checkpoint. */
  savedStep = 0;
  #model: MambaLM | undefined;
  #speed = 0;
  /** Whether something else than a step was done in this turn. */
  #busy = false;

  constructor(readonly options: ContenderOptions) {
    const { name, settings, corpus } = options;
    this.config = configOf(name, settings, corpus.tokenizer.vocabSize);
    this.folder = `run/${name}`;
  }

  get name(): Name {
    return this.options.name;
  }

  /** The model, while it is on a device. */
  get model(): MambaLM | undefined {
    return this.#model;
  }

  /** Makes the model on a device, as it was at first; {@link train} puts back what was learnt. */
  build(device: Device): void {
    this.#model = MambaLM.create(this.config, { device, seed: this.options.settings.seed });
  }

  /** Makes the model on a device, as it was saved last. */
  async restore(device: Device): Promise<void> {
    const { files } = this.options;
    this.#model = await MambaLM.load(files, await resolveCheckpoint(files, this.folder), { device });
  }

  /**
   * Trains to the last step or until `signal` asks to stop, from the last checkpoint on where there is one.
   * @throws TrainingError naming the step and the cause
   */
  async train(steps: number, turns: Turns, signal: AbortSignal): Promise<RunResult> {
    const { settings, corpus, files, name } = this.options;
    const model = this.#model as MambaLM;
    if (this.savedStep === 0) {
      await turns.enter(name);
      const { loss, bpc } = await this.#evaluate(model);
      this.#heldOut(0, loss, bpc);
    }
    const trainer = new Trainer({
      model,
      groups: decayGroups(model, 0.1),
      adamw: { beta1: 0.9, beta2: 0.95 },
      schedule: (step) => rateAt(settings, step),
      steps,
      maxNorm: 1,
      data: this.#batches(turns),
      files,
      folder: this.folder,
      resume: true,
      settings: { model: this.config, text: corpus.name, ...settings },
      freeSettings: ["steps", "evaluateEvery", "evaluateTokens", "sampleEvery", "sampleTokens"],
      evaluate: () => this.#evaluate(model),
      evaluateEvery: settings.evaluateEvery,
      sample: ({ step }) => this.#sample(model, step),
      sampleEvery: settings.sampleEvery,
      checkpointEvery: settings.evaluateEvery,
      keepLast: 1,
      keepBest: false,
      lambdaEvery: 5,
      saveExtra: (target, folder) => saveTokenizer(target, folder, corpus.tokenizer),
      onEvent: (event) => this.#tell(event),
    });
    return trainer.run({ signal });
  }

  /** Frees the model on its device; what was saved stays. */
  dispose(): void {
    this.#model?.dispose();
    this.#model = undefined;
  }

  /** Batches that come when it is this model's turn. Both models get the same ones. */
  #batches(turns: Turns): Batches {
    const { settings, corpus, name } = this.options;
    const { batch, length, seed } = settings;
    const batches = randomBatches(corpus.train, { batchSize: batch, length, seed });
    let began: number | undefined;
    return {
      batchesPerEpoch: batches.batchesPerEpoch,
      nextBatch: async () => {
        if (began !== undefined && !this.#busy) this.#took(performance.now() - began, batch * length);
        this.#busy = false;
        await turns.enter(name);
        began = performance.now();
        return batches.nextBatch();
      },
      state: () => batches.state(),
      restore: (state) => batches.restore(state),
      [Symbol.asyncIterator]: () => batches[Symbol.asyncIterator](),
    };
  }

  /** A turn with nothing but a step in it is over: its time is the model's own, not the other's. */
  #took(milliseconds: number, tokens: number): void {
    const speed = (1000 * tokens) / Math.max(milliseconds, 1e-3);
    this.#speed = this.#speed === 0 ? speed : this.#speed + newest * (speed - this.#speed);
  }

  async #evaluate(model: MambaLM): Promise<Evaluation> {
    this.#busy = true;
    const { settings, corpus } = this.options;
    const { nll, tokens, bpc, bpb } = await evaluate(model, corpus.heldOut, {
      length: settings.length,
      batchSize: settings.batch,
      maxTokens: settings.evaluateTokens,
      text: corpus.tokenizer,
    });
    return { loss: nll, tokens, ...(bpc !== undefined && { bpc }), ...(bpb !== undefined && { bpb }) };
  }

  async #sample(model: MambaLM, step: number): Promise<Sample> {
    this.#busy = true;
    const { settings, corpus, post, name } = this.options;
    const { tokenizer, prompt } = corpus;
    post({ type: "sample", slot: name, step, prompt });
    let text = "";
    const steps = generate(model, tokenizer.encode(prompt), {
      maxTokens: settings.sampleTokens,
      temperature: sampleTemperature,
      seed: settings.seed,
      decode: () => tokenizer.stream(),
    });
    for await (const { text: [piece = ""] = [] } of steps) {
      text += piece;
      post({ type: "sampleText", slot: name, text: piece });
    }
    return { prompt, text };
  }

  #heldOut(step: number, loss: number, perCharacter: unknown): void {
    const { corpus, post, name } = this.options;
    const bits = corpus.symbol === "character" && typeof perCharacter === "number" ? perCharacter : loss / Math.LN2;
    post({ type: "heldOut", slot: name, step, bits });
  }

  #tell(event: TrainEvent): void {
    const { post, name } = this.options;
    if (event.type === "step") {
      const { step, loss, lambda } = event;
      this.step = step;
      const bits = loss / Math.LN2;
      post({ type: "step", slot: name, step, bits, tokensPerSecond: this.#speed, ...(lambda && { lambda }) });
    } else if (event.type === "evaluation") {
      this.#heldOut(event.step, event.evaluation.loss, event.evaluation.bpc);
    } else if (event.type === "checkpoint") {
      this.#busy = true;
      this.savedStep = event.step;
    } else if (event.type === "warning") {
      post({ type: "warning", message: event.message });
    }
  }
}
