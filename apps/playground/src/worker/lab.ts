// Layer: apps/playground, worker. Everything that requests act on: the device, the run, the loaded model; each request is a method.
// Knows the run, checkpoints and generation. Knows no message port and no page.

import { generate, type MambaLM } from "@diffmamba/models";
import type { Device } from "@diffmamba/tensor";
import type { Tokenizer } from "@diffmamba/tokenizer";
import type {
  Answer,
  Ask,
  BackendReport,
  BackendState,
  CheckpointSource,
  Event,
  LambdaValue,
  ModelSummary,
  RunSummary,
  Slot,
} from "../protocol.js";
import { faultOfSettings } from "../settings.js";
import type { OpenedBackend } from "./backends.js";
import { exportToDirectory, exportZip, type LoadedModel, loadCheckpoint } from "./checkpoints.js";
import { corpusOf } from "./corpus.js";
import { Duel } from "./duel.js";

const titles = { vanilla: "Mamba-2", differential: "Diff-Mamba-2" } as const;

/** How devices come to be; the worker's are in backends.ts. */
export interface Backends {
  reports(): Promise<BackendReport[]>;
  open(asked: Ask<"open">["backend"], options: { readonly threads?: number }): Promise<OpenedBackend>;
}

/** A request that cannot be done now. */
export class LabError extends Error {
  override readonly name = "LabError";
}

export class Lab {
  #backend: OpenedBackend | undefined;
  #asked: Ask<"open"> = {};
  #duel: Duel | undefined;
  #loaded: (LoadedModel & { readonly source: CheckpointSource }) | undefined;
  /** What is under way that needs the models to itself. */
  #queue: Promise<unknown> = Promise.resolve();
  #generating = new AbortController();

  constructor(
    readonly backends: Backends,
    readonly post: (event: Event) => void,
  ) {}

  /** One piece of work after the other, without training in between. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const run = () => (this.#duel ? this.#duel.undisturbed(work) : work());
    const result = this.#queue.then(run, run);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** Changes what training and generation stand on: nothing else runs. */
  #change<T>(work: () => Promise<T>): Promise<T> {
    this.#generating.abort();
    const result = this.#queue.then(work, work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #device(): Device {
    if (this.#backend === undefined) throw new LabError("There is no backend yet.");
    return this.#backend.device;
  }

  open(asked: Ask<"open">): Promise<BackendState> {
    return this.#change(async () => {
      const duel = this.#duel;
      const goesOn = duel !== undefined && (duel.phase === "training" || duel.phase === "paused");
      if (duel !== undefined) await duel.dispose();
      this.#loaded?.model.dispose();
      await this.#closeDevice();
      this.#asked = asked;
      const state = await this.#openDevice();
      const device = this.#device();
      const source = this.#loaded?.source;
      this.#loaded = undefined;
      // After an interruption the visitor decides when to go on.
      if (duel !== undefined && duel.phase !== "interrupted") {
        await duel.place(device);
        if (goesOn) await duel.start({ paused: duel.phase === "paused" });
      }
      if (source !== undefined) this.#loaded = { ...(await loadCheckpoint(source, device)), source };
      return state;
    });
  }

  async #openDevice(): Promise<BackendState> {
    const { backend, ...options } = this.#asked;
    const opened = await this.backends.open(backend, options);
    this.#backend = opened;
    const { name, title, note, device } = opened;
    const reports = await this.backends.reports();
    return { name, title, device: device.backend.device, reports, ...(note !== undefined && { note }) };
  }

  async #closeDevice(): Promise<void> {
    const device = this.#backend?.device;
    this.#backend = undefined;
    // One that was lost may fail to close, which changes nothing.
    await device?.dispose().catch(() => undefined);
  }

  train({ name, text, settings }: Ask<"train">): Promise<Answer<"train">> {
    return this.#change(async () => {
      const fault = faultOfSettings(settings);
      if (fault !== undefined) throw new LabError(fault);
      const device = this.#device();
      const corpus = corpusOf(name, text, settings);
      const duel = new Duel(corpus, settings, this.post);
      await this.#duel?.dispose();
      this.#duel = duel;
      await duel.place(device);
      const models = await Promise.all(duel.contenders.map((one) => this.#summary(one.name)));
      const run: RunSummary = {
        name,
        characters: corpus.train.length,
        heldOut: corpus.heldOut.length,
        symbols: corpus.tokenizer.vocabSize,
        symbol: corpus.symbol,
        prompt: corpus.prompt,
        models,
        settings,
      };
      this.post({ type: "run", run });
      await duel.start();
      return undefined;
    });
  }

  async pause(): Promise<undefined> {
    await this.#duel?.pause();
  }

  async resume(): Promise<undefined> {
    const duel = this.#duel;
    if (duel?.phase === "paused") duel.resume();
    if (duel?.phase !== "interrupted") return;
    await this.#change(async () => {
      await duel.dispose();
      this.#loaded?.model.dispose();
      const source = this.#loaded?.source;
      this.#loaded = undefined;
      await this.#closeDevice();
      await this.#openDevice();
      await duel.place(this.#device());
      await duel.start();
      if (source !== undefined) this.#loaded = { ...(await loadCheckpoint(source, this.#device())), source };
    });
  }

  async extend({ steps }: Ask<"extend">): Promise<undefined> {
    await this.#change(async () => {
      const duel = this.#duel;
      if (duel?.phase !== "finished") throw new LabError("More steps can be asked for once a run has come to its end.");
      await duel.extend(steps);
    });
  }

  /** The model and the tokenizer of a slot. @throws LabError where there is none */
  #find(slot: Slot): {
    readonly model: MambaLM;
    readonly tokenizer: Tokenizer;
    readonly title: string;
    readonly step?: number;
  } {
    if (slot === "loaded") {
      if (this.#loaded === undefined) throw new LabError("No checkpoint is loaded.");
      return this.#loaded;
    }
    const contender = this.#duel?.contenders.find(({ name }) => name === slot);
    const model = contender?.model;
    if (this.#duel === undefined || contender === undefined || model === undefined) {
      throw new LabError(`${titles[slot]} is not there yet: train it first.`);
    }
    return { model, tokenizer: this.#duel.corpus.tokenizer, title: titles[slot], step: contender.step };
  }

  async #summary(slot: Slot): Promise<ModelSummary> {
    const { model, title, step } = this.#find(slot);
    const { config } = model;
    const lambda: LambdaValue[] = [];
    for (const { layer, value } of model.lambdas()) {
      lambda.push({ layer, value: await value.item() });
      value.dispose();
    }
    return {
      slot,
      title,
      parameters: model.parameterCount(),
      layers: config.nLayers,
      width: config.dModel,
      differential: lambda.map(({ layer }) => layer),
      symbols: config.vocabSize,
      lambda,
      ...(step !== undefined && { step }),
    };
  }

  /** @param onText takes the text as it comes */
  generate(ask: Ask<"generate">, onText: (text: string) => void): Promise<Answer<"generate">> {
    const { slot, prompt, temperature, maxTokens, seed } = ask;
    if (this.#generating.signal.aborted) this.#generating = new AbortController();
    const { signal } = this.#generating;
    return this.#alone(async () => {
      const { model, tokenizer } = this.#find(slot);
      const began = performance.now();
      let tokens = 0;
      const { bos, eos } = tokenizer.specialTokens;
      const ids = tokenizer.encode(prompt);
      const first = bos ?? eos;
      if (ids.length === 0 && first === undefined)
        throw new LabError("The prompt is empty: give at least one character.");
      const answer = (stopped: boolean) => ({ tokens, seconds: (performance.now() - began) / 1000, stopped });
      const steps = generate(model, ids.length > 0 ? ids : [first as number], {
        maxTokens,
        temperature,
        seed,
        ...(eos !== undefined && { eos }),
        decode: () => tokenizer.stream(),
        signal,
      });
      try {
        for await (const { text: [piece = ""] = [] } of steps) {
          tokens++;
          onText(piece);
        }
      } catch (error) {
        if (error !== signal.reason) throw error;
        return answer(true);
      }
      return answer(false);
    });
  }

  async cancel(): Promise<undefined> {
    this.#generating.abort();
  }

  load(source: Ask<"load">): Promise<ModelSummary> {
    return this.#alone(async () => {
      const loaded = await loadCheckpoint(source, this.#device());
      this.#loaded?.model.dispose();
      this.#loaded = { ...loaded, source };
      return this.#summary("loaded");
    });
  }

  export({ slot, to }: Ask<"export">): Promise<Answer<"export">> {
    return this.#alone(async () => {
      const found = this.#find(slot);
      const steps = found.step === undefined ? "" : `-step-${found.step}`;
      const name = slot === "loaded" ? found.title : `${titles[slot].toLowerCase()}${steps}`;
      if (to !== undefined) {
        await exportToDirectory(to, name, found);
        return { name };
      }
      return { name, zip: await exportZip(name, found) };
    });
  }
}
