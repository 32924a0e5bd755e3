// Layer: apps/cli, training. A run: data, device, model and trainer put together from settings, and what is said on the way.
// Knows the packages. Knows no flag.
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import {
  type Batches,
  packedBatches,
  randomBatches,
  rowBatches,
  storeFile,
  type TokenSplit,
  TokenStore,
} from "@diffmamba/datasets";
import { evaluate } from "@diffmamba/eval";
import { nodeFiles } from "@diffmamba/files/node";
import { complete, MambaLM, type ModelConfig, modelConfig } from "@diffmamba/models";
import { decayGroups, type Module } from "@diffmamba/nn";
import type { Device } from "@diffmamba/tensor";
import { saveTokenizer, type Tokenizer } from "@diffmamba/tokenizer";
import { type Evaluation, estimateMemory, type RunResult, type Sample, Trainer } from "@diffmamba/train";
import { nodeHost, type StopSignals, showProgress, stopSignals } from "@diffmamba/train/node";
import { chooseDevice, openDevice } from "../backends.js";
import { findData, mixedStores, trainingStore } from "../data.js";
import { UsageError } from "../errors.js";
import { showEvaluation, showPreparation } from "../progress.js";
import type { Settings } from "../settings/schema.js";
import type { Terminal } from "../terminal.js";
import { count, size } from "../text.js";
import {
  dataFolder,
  type Plan,
  planFile,
  readRunFile,
  type Start,
  settingsFile,
  startFile,
  writeRunFile,
} from "./files.js";
import { samplePrompt } from "./prompt.js";
import { scheduleOf } from "./schedule.js";
import type { RunPlan } from "./settings.js";

/** How a run, or this part of it, went. */
export interface TrainOutcome {
  readonly folder: string;
  readonly parameters: number;
  readonly vocabSize: number;
  readonly result: RunResult;
  /** Of the weights before the first step. */
  readonly initial?: Evaluation;
  /** The last one of this part. */
  readonly evaluation?: Evaluation;
  /** 130 or 143 where a signal stopped it. */
  readonly exitCode?: number;
}

/** Settings that a continuation may change: what is computed stays the same. */
const freeSettings = [
  "backend",
  "dataPath",
  "preset",
  ...["steps", "evalEvery", "evalTokens", "saveEvery", "keep", "lambdaEvery"].map((name) => `train.${name}`),
  ...["sampleEvery", "sampleTokens", "samplePrompt", "sampleTemperature"].map((name) => `train.${name}`),
];

const symbolsOf = ({ kind }: Tokenizer): Start["symbols"] =>
  kind === "characters" ? "character" : kind === "bytes" ? "byte" : "token";

/** The store that a run reads: the one in its folder where it goes on, else what --data gives. */
async function openData(terminal: Terminal, folder: string, { settings, data, resumes }: RunPlan, signal: AbortSignal) {
  const files = nodeFiles();
  const own = path.join(folder, dataFolder);
  if (resumes && existsSync(path.join(own, storeFile))) return TokenStore.open(files, own);
  const progress = showPreparation(terminal);
  try {
    return await trainingStore(data, settings.data, own, { files, signal, onProgress: progress.show });
  } finally {
    progress.end();
  }
}

function configOf(settings: Settings, store: TokenStore): ModelConfig {
  const vocabSize = settings.model.vocabSize ?? store.vocabSize;
  if (vocabSize < store.vocabSize) {
    throw new UsageError(
      `model.vocabSize is ${vocabSize}, but the tokenizer of ${store.path} has ${store.vocabSize} tokens; it must be at least that.`,
    );
  }
  return modelConfig({ ...settings.model, vocabSize });
}

/** The model that the settings train: its first values, what it computes in, and what it holds for its gradients. */
function createModel(config: ModelConfig, { seed, train }: Settings, device: Device): MambaLM {
  const { precision, checkpointActivations } = train;
  if (!device.backend.dtypes.has(precision)) {
    const known = [...device.backend.dtypes].filter((type) => type === "f32" || type === "bf16" || type === "f16");
    throw new UsageError(`train.precision is ${precision}, but the backend ${device.name} has ${known.join(", ")}.`);
  }
  const model = MambaLM.create(config, { device, seed, ...(precision !== "f32" && { compute: precision }) });
  model.backbone.recomputes = checkpointActivations;
  return model;
}

async function batchesOf(store: TokenStore, { data, train, seed }: Settings): Promise<Batches> {
  const source = store.split("train");
  const { batchSize, length } = train;
  if (data.order === "packed") {
    return packedBatches([{ source, weight: 1 }, ...(await mixedStores(store, data.mix))], { batchSize, length, seed });
  }
  if (data.mix !== "") throw new UsageError('data.mix wants data.order "packed": only packed windows are mixed.');
  // The paper's code rotates its rows with seed 42 (its dataloaders/lm.py).
  return data.order === "rows"
    ? rowBatches(source, { batchSize, length, rotateSeed: 42 + seed })
    : randomBatches(source, { batchSize, length, seed });
}

/** The parameters of a model by their decay. */
const groupsOf = (model: Module, { weightDecay, decayRule, decayEmbeddings }: Settings["train"]) =>
  decayGroups(model, weightDecay, decayRule, { embeddings: decayEmbeddings });

/** The sizes of a store: `text8: 90,000,000 / 5,000,000 / 5,000,000 characters, 27 symbols`. */
function describeData(store: TokenStore, symbols: Start["symbols"]): string {
  const counts = store.splitNames.map((name) => count(store.split(name).length)).join(" / ");
  return `${store.name}: ${counts} ${symbols}s (${store.splitNames.join(" / ")}), ${count(store.vocabSize)} symbols`;
}

/** All that a run is made of. */
class Run {
  readonly model: MambaLM;
  readonly heldOut: TokenSplit | undefined;

  constructor(
    readonly terminal: Terminal,
    readonly folder: string,
    readonly plan: RunPlan,
    readonly store: TokenStore,
    readonly tokenizer: Tokenizer,
    readonly config: ModelConfig,
    readonly device: Device,
  ) {
    this.model = createModel(config, plan.settings, device);
    this.heldOut = store.splitNames.includes("valid") ? store.split("valid") : undefined;
  }

  get settings(): Settings {
    return this.plan.settings;
  }

  /** The plan as it is written down. */
  get record(): Plan {
    const { preset, data, settings } = this.plan;
    const dataPath = existsSync(data) ? path.resolve(data) : data;
    return {
      ...settings,
      model: this.config,
      backend: this.device.name,
      dataPath,
      ...(preset !== undefined && { preset }),
    };
  }

  /** Data sizes, parameters and memory, before the first step. */
  async announce(): Promise<void> {
    const { settings, config, terminal } = this;
    const { batchSize, length, accumulate } = settings.train;
    const memory = await estimateMemory({
      build: (device) => createModel(config, settings, device),
      device: this.device,
      batchSize,
      length,
      microBatches: accumulate,
      groups: (model) => groupsOf(model, settings.train),
    });
    terminal.note(describeData(this.store, symbolsOf(this.tokenizer)));
    terminal.note(
      `${count(this.model.parameterCount())} parameters; a step takes about ${size(memory.total)} of memory ` +
        `(weights ${size(memory.parameters)}, gradients ${size(memory.gradients)}, moments ${size(memory.optimizer)}, ` +
        `activations ${size(memory.activations)})`,
    );
    terminal.note(`backend ${this.device.name}: ${this.device.backend.device}`);
  }

  /** Scores the held-out text. */
  async evaluate(source: TokenSplit, signal?: AbortSignal, title?: string): Promise<Evaluation> {
    const { length, batchSize, evalTokens } = this.settings.train;
    // The paper's runs are scored as they are trained: contiguous rows, the mean of batches beside that of tokens.
    const asRows = this.settings.data.order === "rows" && evalTokens === 0;
    const progress = title === undefined ? undefined : showEvaluation(this.terminal, title);
    try {
      const {
        lossByPosition: _,
        nll,
        ...rest
      } = await evaluate(this.model, source, {
        length,
        batchSize,
        text: this.tokenizer,
        ...(evalTokens > 0 && { maxTokens: evalTokens }),
        ...(asRows && { batching: "rows" as const }),
        ...(signal && { signal }),
        ...(progress && { onProgress: progress.show }),
      });
      return { loss: nll, ...rest };
    } finally {
      progress?.end();
    }
  }

  /** Text that the model goes on with. */
  async sample(prompt: { readonly text: string; readonly ids: Int32Array }): Promise<Sample> {
    const { sampleTokens, sampleTemperature } = this.settings.train;
    const { eos } = this.tokenizer.specialTokens;
    const [{ text = "" }] = await complete(this.model, prompt.ids, {
      maxTokens: sampleTokens,
      temperature: sampleTemperature,
      seed: this.settings.seed,
      decode: () => this.tokenizer.stream(),
      ...(eos !== undefined && { eos }),
    });
    return { prompt: prompt.text, text };
  }

  /** What is known before the first step; measured once, and read back where the run goes on. */
  async start(signal: AbortSignal): Promise<Start> {
    const known = this.plan.resumes ? await readRunFile<Start>(this.folder, startFile) : undefined;
    if (known !== undefined) return known;
    const evaluation =
      this.heldOut && !this.plan.resumes ? await this.evaluate(this.heldOut, signal, "first score") : undefined;
    const start: Start = {
      parameters: this.model.parameterCount(),
      vocabSize: this.store.vocabSize,
      symbols: symbolsOf(this.tokenizer),
      backend: this.device.name,
      ...(evaluation && { evaluation }),
    };
    await writeRunFile(this.folder, startFile, start);
    return start;
  }

  async train(stop: StopSignals, version: string): Promise<RunResult> {
    const { settings, model, heldOut, record, tokenizer } = this;
    const { train } = settings;
    const prompt =
      train.sampleTokens > 0
        ? await samplePrompt(train.samplePrompt, tokenizer, heldOut ?? this.store.split("train"))
        : undefined;
    const trainer = new Trainer({
      model,
      groups: groupsOf(model, train),
      adamw: { beta1: train.beta1, beta2: train.beta2, eps: train.eps },
      schedule: scheduleOf(train),
      steps: train.steps,
      ...(train.clip > 0 && { maxNorm: train.clip }),
      data: await batchesOf(this.store, settings),
      microBatches: train.accumulate,
      files: nodeFiles(),
      folder: this.folder,
      resume: true,
      settings: record,
      freeSettings,
      versions: { "@diffmamba/cli": version },
      ...(heldOut && {
        evaluate: () => this.evaluate(heldOut),
        ...(train.evalEvery > 0 && { evaluateEvery: train.evalEvery }),
      }),
      ...(prompt && {
        sample: () => this.sample(prompt),
        ...(train.sampleEvery > 0 && { sampleEvery: train.sampleEvery }),
      }),
      ...(train.saveEvery > 0 && { checkpointEvery: train.saveEvery }),
      keepLast: train.keep,
      lambdaEvery: train.lambdaEvery,
      saveExtra: async (files, folder) => {
        await saveTokenizer(files, folder, tokenizer);
        await writeRunFile(folder, settingsFile, record);
      },
      onEvent: showProgress({ stream: process.stderr }),
      host: nodeHost(),
    });
    return trainer.run({ signal: stop.signal });
  }

  dispose(): void {
    this.model.dispose();
  }
}

/** Trains as planned, from the first step or from where the run stands. */
export async function train(terminal: Terminal, folder: string, plan: RunPlan, version: string): Promise<TrainOutcome> {
  using stop = stopSignals({
    onStop: () => terminal.note("stopping: the step under way is finished and saved; once more to stop at once"),
  });
  const files = nodeFiles();
  const { backend } = plan.settings;
  const flags = {
    ...(backend !== undefined && { backend }),
    ...(plan.threads !== undefined && { threads: plan.threads }),
  };
  await using device = await openDevice(chooseDevice(flags, terminal.note));
  let parameters = 0;
  let vocabSize = 0;
  const outcome = (result: RunResult, start?: Start): TrainOutcome => ({
    folder,
    parameters,
    vocabSize,
    result,
    ...(start?.evaluation && { initial: start.evaluation }),
    ...(result.evaluation && { evaluation: result.evaluation }),
    ...(result.stopped === "signal" && stop.exitCode !== undefined && { exitCode: stop.exitCode }),
  });
  try {
    if (!plan.resumes) findData(plan.data);
    await files.makeDirectory(folder);
    if (!plan.resumes)
      await writeRunFile(folder, planFile, { ...plan.settings, preset: plan.preset, dataPath: plan.data });
    const store = await openData(terminal, folder, plan, stop.signal);
    const tokenizer = await store.loadTokenizer();
    const run = new Run(terminal, folder, plan, store, tokenizer, configOf(plan.settings, store), device);
    try {
      [parameters, vocabSize] = [run.model.parameterCount(), run.config.vocabSize];
      await run.announce();
      const start = await run.start(stop.signal);
      return outcome(await run.train(stop, version), start);
    } finally {
      run.dispose();
    }
  } catch (error) {
    // Stopped while the data was prepared or first scored: nothing has been trained, and nothing is lost.
    if (stop.received === undefined || error !== stop.signal.reason) throw error;
    return outcome({ stopped: "signal", step: 0 });
  }
}
