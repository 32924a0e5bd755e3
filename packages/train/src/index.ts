// Layer: train. The public entry: the trainer, run folders and their checkpoints, metrics, events, and the memory a step will take.

export { readCheckpoint, type TrainingState, writeCheckpoint } from "./checkpoint.js";
export { RunError, TrainingError, type TrainingErrorDetails } from "./errors.js";
export type {
  BestCheckpoint,
  CheckpointEvent,
  EndEvent,
  EvaluationEvent,
  RunResult,
  SampleEvent,
  StartEvent,
  StepEvent,
  TrainEvent,
  WarningEvent,
} from "./events.js";
export type { Json, JsonObject } from "./json.js";
export { type LockHolder, type LockHost, pageHost, RunLock } from "./lock.js";
export { estimateMemory, type MemoryEstimate, type MemoryQuestion } from "./memory.js";
export {
  type Evaluation,
  type LambdaValue,
  type MetricsLine,
  readMetrics,
  readSamples,
  reproducible,
  type Sample,
  type SampleLine,
  wallClockKeys,
} from "./metrics.js";
export type { Lambda, TrainableModel } from "./model.js";
export type { CallbackContext, TrainerOptions } from "./options.js";
export { type RunPart, type RunRecord, readRunRecord } from "./record.js";
export { bestFile, lastFile, metricsFile, resolveCheckpoint, runFile, samplesFile } from "./runFolder.js";
export { Trainer } from "./trainer.js";
