// Layer: train. What is written while a run goes: lines of metrics and samples, events beside them, and checkpoints.
// Knows the run's folder and its clock. Knows no device and does not decide when anything is due.

import type { AdamW, LossScale } from "@diffmamba/nn";
import { writeCheckpoint } from "./checkpoint.js";
import type { BestCheckpoint } from "./events.js";
import { toJson } from "./json.js";
import { JsonLinesWriter } from "./jsonLines.js";
import type { LaunchedStep, StepNumbers } from "./launched.js";
import type { Evaluation, MetricsLine, Sample } from "./metrics.js";
import type { ResolvedOptions } from "./options.js";
import { Pace } from "./pace.js";
import { bestFile, metricsFile, samplesFile } from "./runFolder.js";
import type { Session } from "./session.js";

/** Milliseconds after which lines are written even if nothing is due, so that a report of a running run is fresh. */
const FLUSH_MS = 2000;

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);

/** Where the run stands when a checkpoint is made of it. */
export interface Standing {
  readonly step: number;
  readonly optimizer: AdamW;
  readonly lossScale: LossScale | undefined;
  readonly skipped: number;
  readonly best: BestCheckpoint | null;
}

export class Recorder {
  readonly #metrics: JsonLinesWriter;
  readonly #samples: JsonLinesWriter;
  readonly #pace: Pace;
  /** Targets of the steps that have been read. */
  #tokens: number;
  #flushed: number;

  constructor(
    readonly options: ResolvedOptions,
    readonly session: Session,
  ) {
    const { files, now } = options;
    const { folder, state } = session;
    this.#metrics = new JsonLinesWriter(files, folder.at(metricsFile));
    this.#samples = new JsonLinesWriter(files, folder.at(samplesFile));
    this.#pace = new Pace(now, state.seconds);
    this.#tokens = state.tokens;
    this.#flushed = now();
  }

  start(step: number): void {
    const { options, session } = this;
    const { resumedFrom, folder } = session;
    const parameters = options.model.parameterCount();
    const place = resumedFrom === undefined ? {} : { resumedFrom };
    options.onEvent({ type: "start", folder: folder.path, step, steps: options.steps, parameters, ...place });
    for (const message of session.warnings) this.warn(step, message);
    this.resume();
  }

  /** The clock goes on after a pause. */
  resume(): void {
    this.#pace.resume();
  }

  warn(step: number, message: string): void {
    this.options.onEvent({ type: "warning", step, message });
  }

  /** A step has been read: its event. */
  step({ step, lr, tokens }: LaunchedStep, { loss, norm, lambda }: StepNumbers): void {
    this.#tokens += tokens;
    this.#pace.step(tokens);
    const { steps, onEvent } = this.options;
    onEvent({
      type: "step",
      step,
      steps,
      loss,
      lr,
      norm,
      tokens: this.#tokens,
      tokensPerSecond: this.#pace.tokensPerSecond,
      time: this.#pace.seconds,
      secondsLeft: this.#pace.left(steps - step),
      ...(lambda && { lambda }),
    });
  }

  /** The line of a step, where one is due. It must not depend on when the run is stopped or saved. */
  line(launched: LaunchedStep, numbers: StepNumbers, evaluation?: Evaluation): void {
    const { steps, logEvery } = this.options;
    const due = launched.step % logEvery === 0 || launched.step === steps;
    if (due || numbers.lambda !== undefined || evaluation !== undefined) this.write(launched, numbers, evaluation);
  }

  /** The line of a step. */
  write({ step, lr }: LaunchedStep, { loss, norm, lambda }: StepNumbers, evaluation?: Evaluation): void {
    const line: MetricsLine = {
      step,
      loss: finite(loss),
      lr,
      norm: finite(norm),
      tokens: this.#tokens,
      tokensPerSecond: Math.round(this.#pace.tokensPerSecond * 10) / 10,
      time: Math.round(this.#pace.seconds * 1000) / 1000,
      ...(lambda && { lambda }),
      ...(evaluation && { eval: toJson(evaluation) as unknown as Evaluation }),
    };
    this.#metrics.add(line);
  }

  sample(step: number, sample: Sample): void {
    this.#samples.add({ step, ...sample });
    this.options.onEvent({ type: "sample", step, sample });
  }

  /** Writes the lines that wait. */
  async flush(): Promise<void> {
    this.#flushed = this.options.now();
    await this.#metrics.flush();
    await this.#samples.flush();
  }

  async flushNowAndThen(): Promise<void> {
    if (this.options.now() - this.#flushed >= FLUSH_MS) await this.flush();
  }

  /**
   * Makes a checkpoint, after every line up to it is on disk, and then lets old ones go.
   * @param published called once the checkpoint is the last one
   */
  async checkpoint({ step, optimizer, lossScale, skipped, best }: Standing, published: () => void): Promise<void> {
    const { files, model, data, saveExtra, keepLast, keepBest } = this.options;
    const { folder, lock } = this.session;
    await this.flush();
    await lock.check();
    const state = {
      step,
      tokens: this.#tokens,
      seconds: this.#pace.seconds,
      skipped,
      best: keepBest ? best : null,
      data: toJson(data.state()),
      ...(lossScale && { lossScale: await lossScale.state() }),
    };
    await folder.publish(step, (path) =>
      writeCheckpoint(files, path, { model, optimizer, state, ...(saveExtra && { saveExtra }) }),
    );
    published();
    if (keepBest && best?.step === step) await folder.point(bestFile, step);
    try {
      await folder.prune(step, keepLast, keepBest && best !== null ? [best.step] : []);
    } catch (error) {
      this.warn(step, `an old checkpoint could not be removed: ${(error as Error).message}`);
    }
  }
}
