// Layer: train. What a run tells while it goes: typed events, for progress bars, logs and pages.
// Knows no renderer.

import type { Evaluation, LambdaValue, Sample } from "./metrics.js";

/** How a run ended. */
export interface RunResult {
  /** "finished": all steps are done; "signal": it was asked to stop, and `resume` goes on. */
  readonly stopped: "finished" | "signal";
  /** Steps done. */
  readonly step: number;
  /** Path of the last checkpoint; absent where the run was stopped before it had taken a step. */
  readonly checkpoint?: string;
  /** The last evaluation of this part of the run. */
  readonly evaluation?: Evaluation;
  readonly best?: BestCheckpoint;
}

/** The checkpoint with the smallest loss of its evaluation. */
export interface BestCheckpoint {
  readonly step: number;
  readonly loss: number;
}

export interface StartEvent {
  readonly type: "start";
  readonly folder: string;
  /** Steps done already: 0, or those of the checkpoint that the run goes on from. */
  readonly step: number;
  readonly steps: number;
  readonly parameters: number;
  /** The checkpoint that the run goes on from. */
  readonly resumedFrom?: string;
}

/** A step whose numbers have been read, one step after it was launched. */
export interface StepEvent {
  readonly type: "step";
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly lr: number;
  /** Not finite where the step was skipped. */
  readonly norm: number;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly time: number;
  readonly secondsLeft: number;
  readonly lambda?: readonly LambdaValue[];
}

export interface EvaluationEvent {
  readonly type: "evaluation";
  readonly step: number;
  readonly evaluation: Evaluation;
  /** Whether it is the best so far. */
  readonly best: boolean;
}

export interface CheckpointEvent {
  readonly type: "checkpoint";
  readonly step: number;
  readonly path: string;
  readonly best: boolean;
}

export interface SampleEvent {
  readonly type: "sample";
  readonly step: number;
  readonly sample: Sample;
}

export interface WarningEvent {
  readonly type: "warning";
  readonly step: number;
  readonly message: string;
}

/** The last event of a run, also of one that fails: then without a result. */
export interface EndEvent {
  readonly type: "end";
  readonly step: number;
  readonly result?: RunResult;
  readonly error?: unknown;
}

export type TrainEvent =
  | StartEvent
  | StepEvent
  | EvaluationEvent
  | CheckpointEvent
  | SampleEvent
  | WarningEvent
  | EndEvent;
