// Layer: train. The loop: launch a step, read the one before, and at intervals evaluate, sample and save.
// Knows the run's pieces (session, launched steps, logs, checkpoints). Knows no kind of model, no data format and no platform.

import type { Batch } from "@diffmamba/datasets";
import { AdamW, LossScale } from "@diffmamba/nn";
import { TrainingError } from "./errors.js";
import type { BestCheckpoint, RunResult } from "./events.js";
import { abandon, beginReading, type LaunchedStep, probe, settle } from "./launched.js";
import { macrotask } from "./macrotask.js";
import type { Evaluation, Sample } from "./metrics.js";
import { type ResolvedOptions, resolveOptions, type TrainerOptions } from "./options.js";
import { Recorder } from "./recorder.js";
import { Stepper } from "./replayed.js";
import { lastFile, pointedStep } from "./runFolder.js";
import { openSession, type Session } from "./session.js";

export class Trainer {
  readonly #options: ResolvedOptions;

  /** @throws RangeError naming the option that is out of range */
  constructor(options: TrainerOptions) {
    this.#options = resolveOptions(options);
  }

  /**
   * Trains to the last step, or until `signal` asks to stop: then the step under way is finished and saved. Every checkpoint
   * is complete before it can be seen, and what `resume` goes on with is bit for bit what this would have gone on with.
   * @throws RunError where the folder cannot be used; TrainingError where the run had to stop, naming the last good checkpoint
   */
  async run({ signal }: { readonly signal?: AbortSignal } = {}): Promise<RunResult> {
    const options = this.#options;
    const { device } = options.model;
    const optimizer = new AdamW(options.groups, options.adamw);
    const lossScale = computesInF16(optimizer) ? new LossScale(device, options.lossScale) : undefined;
    const records = device.canRecord && (options.record ?? device.backend.prefersRecording === true);
    const stepper = new Stepper(options.model, optimizer, records);
    try {
      const session = await openSession(options, optimizer, lossScale);
      const loop = new Loop(options, { optimizer, lossScale, stepper }, session);
      try {
        return await loop.run(signal);
      } finally {
        await session.lock.release().catch(() => undefined);
      }
    } finally {
      stepper.dispose();
      lossScale?.dispose();
      optimizer.dispose();
    }
  }
}

/** Gradients of f16 vanish and overflow: the loss is scaled. */
function computesInF16({ parameters }: AdamW): boolean {
  return parameters.some((parameter) => parameter.compute.dtype === "f16");
}

/** What takes the steps. */
interface Means {
  readonly optimizer: AdamW;
  readonly lossScale: LossScale | undefined;
  readonly stepper: Stepper;
}

/** What is to be done after a step. */
interface Due {
  readonly evaluating: boolean;
  readonly sampling: boolean;
  readonly saving: boolean;
}

/** From the greatest scale of the loss, 2^24, to the least, 1. */
const HALVINGS = 24;

const nothing: Due = { evaluating: false, sampling: false, saving: false };

/** One part of a run, from its start or resumption to its end. */
class Loop {
  /** Steps launched. */
  #step: number;
  #launched: LaunchedStep | undefined;
  #skipped: number;
  #best: BestCheckpoint | null;
  #evaluation: Evaluation | undefined;
  #lastBatch: Batch | undefined;
  /** Step of the checkpoint that `last` names. */
  #saved: number | undefined;
  readonly #recorder: Recorder;

  constructor(
    readonly options: ResolvedOptions,
    readonly means: Means,
    readonly session: Session,
  ) {
    const { step, skipped, best } = session.state;
    this.#step = step;
    this.#skipped = skipped;
    this.#best = best;
    if (session.resumedFrom !== undefined) this.#saved = step;
    this.#recorder = new Recorder(options, session);
  }

  async run(signal: AbortSignal | undefined): Promise<RunResult> {
    const { model, onEvent } = this.options;
    const { training } = model;
    try {
      this.#recorder.start(this.#step);
      model.train();
      while (this.#step < this.options.steps && !signal?.aborted) await this.#advance(signal);
      // A stop that came after the last look for it.
      if (this.#launched !== undefined) await this.#pause(nothing, signal);
      if (this.#lastBatch !== undefined && this.#saved !== this.#step) await this.#save();
      const result = this.#result(this.#step < this.options.steps ? "signal" : "finished");
      onEvent({ type: "end", step: this.#step, result });
      return result;
    } catch (cause) {
      const error = await this.#named(cause);
      await this.#recorder.flush().catch(() => undefined);
      onEvent({ type: "end", step: this.#step, error });
      throw error;
    } finally {
      if (this.#launched !== undefined) abandon(this.#launched);
      model.train(training);
    }
  }

  /** One step, the reading of the one before, and what is due after it. */
  async #advance(signal: AbortSignal | undefined): Promise<void> {
    const { options } = this;
    const before = this.#launched;
    const step = ++this.#step;
    const batches = await this.#nextBatches();
    const { lossScale, stepper } = this.means;
    this.#launched = stepper.launch(batches, {
      step,
      lr: options.schedule(step - 1),
      maxNorm: options.maxNorm,
      withLambdas: step % options.lambdaEvery === 0 || step === options.steps,
      ...(lossScale && { lossScale }),
    });
    // Now, behind this step and before the next.
    beginReading(this.#launched);
    if (before !== undefined) {
      const numbers = await this.#settle(before);
      this.#recorder.step(before, numbers);
      this.#recorder.line(before, numbers);
    }
    await this.#recorder.flushNowAndThen();
    await macrotask();

    const final = step === options.steps;
    const due = (every: number | undefined) => every !== undefined && step % every === 0;
    const evaluating = options.evaluate !== undefined && (final || due(options.evaluateEvery));
    const sampling = options.sample !== undefined && (final || due(options.sampleEvery));
    const saving = final || due(options.checkpointEvery);
    if (evaluating || sampling || saving || signal?.aborted)
      await this.#pause({ evaluating, sampling, saving }, signal);
  }

  /** Waits for the step under way, then does what is due. */
  async #pause(due: Due, signal: AbortSignal | undefined): Promise<void> {
    const launched = this.#launched as LaunchedStep;
    this.#launched = undefined;
    const numbers = await this.#settle(launched);
    this.#recorder.step(launched, numbers);
    const evaluation = due.evaluating ? await this.#evaluate() : undefined;
    this.#recorder.line(launched, numbers, evaluation);
    if (due.sampling) await this.#sample();
    const isBest = this.options.keepBest && evaluation !== undefined && this.#best?.step === this.#step;
    if (due.saving || isBest || signal?.aborted) await this.#save(evaluation);
    this.#recorder.resume();
  }

  async #nextBatches(): Promise<Batch[]> {
    const batches: Batch[] = [];
    while (batches.length < this.options.microBatches) {
      const batch = await this.options.data.nextBatch();
      if (batch === undefined) {
        throw this.#error(this.#step, "the data has come to its end; ask for fewer steps or for more epochs of it");
      }
      batches.push(batch);
    }
    this.#lastBatch = batches[batches.length - 1];
    return batches;
  }

  /** The numbers of a step, once it is done. @throws TrainingError where its loss is not finite */
  async #settle(launched: LaunchedStep) {
    if (this.#launched === launched) this.#launched = undefined;
    const numbers = await settle(launched);
    const { step, lr } = launched;
    const { loss, norm } = numbers;
    if (!Number.isFinite(loss)) {
      this.#recorder.write(launched, numbers);
      const advice = "lower the learning rate, clip the gradients (maxNorm), or look at the data of this step";
      throw this.#error(step, `the loss is ${loss} at a learning rate of ${lr}; ${advice}`, lr);
    }
    if (Number.isFinite(norm)) {
      this.#skipped = 0;
      return numbers;
    }
    this.#skipped++;
    const halved = this.means.lossScale === undefined ? "" : ", and the scale of the loss was halved";
    this.#recorder.warn(
      step,
      `the norm of the gradients is ${norm}; the step was skipped and changed nothing${halved}`,
    );
    if (this.#skipped >= this.#mostSkipped) {
      this.#recorder.write(launched, numbers);
      const what = `${this.#skipped} steps in a row had gradients of norm ${norm} at a learning rate of ${lr}`;
      throw this.#error(step, `${what}; lower the learning rate`, lr);
    }
    return numbers;
  }

  /** A loss scale may have to come down from its top to 1, a halving a step, before skipped steps mean anything. */
  get #mostSkipped(): number {
    return this.options.maxSkipped + (this.means.lossScale === undefined ? 0 : HALVINGS);
  }

  async #evaluate(): Promise<Evaluation> {
    const evaluation = await this.#inEvaluationMode(this.options.evaluate);
    const { loss } = evaluation;
    if (!Number.isFinite(loss)) throw this.#error(this.#step, `the evaluation's loss is ${loss}`, this.#lr);
    const best = this.#best === null || loss < this.#best.loss;
    if (best) this.#best = { step: this.#step, loss };
    this.#evaluation = evaluation;
    this.options.onEvent({ type: "evaluation", step: this.#step, evaluation, best });
    return evaluation;
  }

  async #sample(): Promise<void> {
    const samples = await this.#inEvaluationMode(this.options.sample);
    for (const sample of Array.isArray(samples) ? (samples as readonly Sample[]) : [samples as Sample]) {
      this.#recorder.sample(this.#step, sample);
    }
  }

  async #inEvaluationMode<T>(callback: ((context: { readonly step: number }) => Promise<T>) | undefined): Promise<T> {
    const { model } = this.options;
    model.eval();
    try {
      return await (callback as (context: { readonly step: number }) => Promise<T>)({ step: this.#step });
    } finally {
      model.train();
    }
  }

  /** Saves the weights, if they have a finite loss: the evaluation's, or else that of the last batch. */
  async #save(evaluation?: Evaluation): Promise<void> {
    const step = this.#step;
    if (evaluation === undefined && this.#lastBatch !== undefined) {
      const loss = await probe(this.options.model, this.#lastBatch);
      if (!Number.isFinite(loss)) throw this.#error(step, `the loss is ${loss} after this step`, this.#lr);
    }
    const isBest = this.#best?.step === step;
    const { optimizer, lossScale } = this.means;
    const standing = { step, optimizer, lossScale, skipped: this.#skipped, best: this.#best };
    await this.#recorder.checkpoint(standing, () => {
      this.#saved = step;
    });
    this.options.onEvent({ type: "checkpoint", step, path: this.session.folder.step(step), best: isBest });
  }

  get #lr(): number {
    return this.options.schedule(this.#step - 1);
  }

  #error(step: number, detail: string, learningRate?: number, options?: ErrorOptions): TrainingError {
    const checkpoint = this.#saved === undefined ? undefined : this.session.folder.step(this.#saved);
    return new TrainingError(
      detail,
      { step, ...(learningRate !== undefined && { learningRate }), ...(checkpoint !== undefined && { checkpoint }) },
      options,
    );
  }

  /** An error with the step and the last good checkpoint named, its cause kept. */
  async #named(cause: unknown): Promise<TrainingError> {
    if (cause instanceof TrainingError) return cause;
    // A save that failed may have failed after `last` was written.
    this.#saved = await pointedStep(this.session.folder, lastFile).catch(() => this.#saved);
    return this.#error(this.#step, cause instanceof Error ? cause.message : String(cause), undefined, { cause });
  }

  #result(stopped: RunResult["stopped"]): RunResult {
    const { folder } = this.session;
    return {
      stopped,
      step: this.#step,
      ...(this.#saved !== undefined && { checkpoint: folder.step(this.#saved) }),
      ...(this.#evaluation !== undefined && { evaluation: this.#evaluation }),
      ...(this.#best !== null && { best: this.#best }),
    };
  }
}
