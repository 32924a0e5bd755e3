// Layer: train. A training step that is recorded once its shapes are steady, and then replayed: what changes from step to step lies in
// tensors that stay where they are, and the numbers of a step are copied out, to be read while the next one runs.
// Knows steps and recordings. Knows no file, no event and no backend by name.

import type { Batch } from "@diffmamba/datasets";
import type { AdamW } from "@diffmamba/nn";
import { keep, noGrad, type Recorded, scope, type Tensor } from "@diffmamba/tensor";
import {
  copies,
  type DeviceBatch,
  type LaunchedStep,
  type LaunchOptions,
  launch,
  takeStep,
  targetsIn,
  upload,
} from "./launched.js";
import type { TrainableModel } from "./model.js";

/** What a recording is made for: the sizes of a step's batches, and what is a constant in it. */
const shapeOf = (batches: readonly Batch[], { maxNorm }: LaunchOptions): string =>
  `${maxNorm} ${batches.map(sizeOf).join(" ")}`;

const sizeOf = ({ batchSize, length, seqIdx }: Batch): string => `${batchSize}x${length}${seqIdx ? " packed" : ""}`;

const tensorsOf = ({ tokens, targets, seqIdx }: DeviceBatch): Tensor[] =>
  seqIdx === undefined ? [tokens, targets] : [tokens, targets, seqIdx];

interface Replay {
  readonly shape: string;
  readonly batches: readonly DeviceBatch[];
  readonly clock: Tensor;
  readonly recorded: Recorded<{ readonly loss: Tensor; readonly norm: Tensor }>;
}

/** Launches steps: plainly, or, where the device can record and that is asked for, from a recording. The same bits either way. */
export class Stepper {
  #before: string | undefined;
  #replay: Replay | undefined;

  constructor(
    readonly model: TrainableModel,
    readonly optimizer: AdamW,
    /** Whether steps are recorded. */
    readonly records: boolean,
  ) {}

  /** Starts a step on the mean loss of its batches. Nothing is read back. */
  launch(batches: readonly Batch[], options: LaunchOptions): LaunchedStep {
    const shape = shapeOf(batches, options);
    // One step is taken plainly first: what is made once, such as a backend's plans, is made outside of the recording.
    const steady = this.records && this.#before === shape;
    this.#before = shape;
    if (!steady) return launch(this.model, this.optimizer, batches, options);
    if (this.#replay?.shape !== shape) this.#record(shape, batches, options);
    return this.#launchReplay(this.#replay as Replay, batches, options);
  }

  #record(shape: string, batches: readonly Batch[], options: LaunchOptions): void {
    const { model, optimizer } = this;
    this.dispose();
    const inputs = scope(() => {
      const made = batches.map((batch) => upload(model, batch));
      return { batches: made, clock: model.device.zeros([], "i32") };
    });
    for (const tensor of [inputs.clock, ...inputs.batches.flatMap(tensorsOf)]) keep(tensor);
    this.#freshen();
    const recorded = model.device.record(() => takeStep(model, optimizer, inputs, options));
    this.#replay = { shape, ...inputs, recorded };
  }

  #launchReplay(
    { batches: places, clock, recorded }: Replay,
    batches: readonly Batch[],
    options: LaunchOptions,
  ): LaunchedStep {
    const { model, optimizer } = this;
    const { step, lr, withLambdas } = options;
    for (const [i, { tokens, targets, seqIdx }] of batches.entries()) {
      places[i].tokens.write(tokens);
      places[i].targets.write(targets);
      if (seqIdx) places[i].seqIdx?.write(seqIdx);
    }
    clock.fillInPlace((step - 1) * batches.length);
    optimizer.setRate(lr);
    this.#freshen();
    recorded.replay();
    const numbers = scope(() =>
      noGrad(() => {
        const { loss, norm } = recorded.result;
        return { loss: loss.clone(), norm: norm.clone(), lambdas: withLambdas ? copies(model.lambdas()) : [] };
      }),
    );
    return { step, lr, tokens: targetsIn(batches), ...numbers };
  }

  /** The recorded step uses cast copies as they are: those of weights that were written meanwhile are made again. */
  #freshen(): void {
    for (const parameter of this.optimizer.parameters) void parameter.compute;
  }

  /** Lets go of the recording. */
  dispose(): void {
    if (this.#replay === undefined) return;
    const { recorded, clock, batches } = this.#replay;
    recorded.dispose();
    for (const tensor of [clock, ...batches.flatMap(tensorsOf)]) tensor.dispose();
    this.#replay = undefined;
  }
}
