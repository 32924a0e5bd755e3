// Layer: train. The two errors of this package: of a run's folder, and of a run on its way.
// Knows no file and no step loop.

/** A run folder or checkpoint that is not what was expected. The message begins with its path. */
export class RunError extends Error {
  override readonly name = "RunError";
  constructor(
    readonly path: string,
    detail: string,
    options?: ErrorOptions,
  ) {
    super(`${path}: ${detail}`, options);
  }
}

export interface TrainingErrorDetails {
  /** The step that failed, counted from 1. */
  readonly step: number;
  readonly learningRate?: number;
  /** Path of the last good checkpoint, from which `resume` goes on. */
  readonly checkpoint?: string;
}

/** A run that had to stop. The message names the step, the learning rate where it matters, and the last good checkpoint. */
export class TrainingError extends Error implements TrainingErrorDetails {
  override readonly name = "TrainingError";
  readonly step: number;
  readonly learningRate: number | undefined;
  readonly checkpoint: string | undefined;

  constructor(detail: string, { step, learningRate, checkpoint }: TrainingErrorDetails, options?: ErrorOptions) {
    const saved =
      checkpoint === undefined ? "No checkpoint was saved yet" : `The last good checkpoint is ${checkpoint}`;
    super(`step ${step}: ${detail.replace(/\.$/, "")}. ${saved}.`, options);
    this.step = step;
    this.learningRate = learningRate;
    this.checkpoint = checkpoint;
  }
}
