// @diffmamba/nn: modules, layers, initialisers, AdamW, schedules and the training step.

export {
  AdamW,
  type AdamWSettings,
  type AdamWState,
  type DecayRule,
  decayGroups,
  type ParameterGroup,
  type StepOptions,
  type WeightDecayOptions,
} from "./adamw.js";
export { Build, type BuildOptions, type Clock } from "./build.js";
export { Derived } from "./derived.js";
export type { Initializer } from "./init.js";
export * as init from "./init.js";
export {
  Dropout,
  Embedding,
  type EmbeddingOptions,
  FeedForward,
  type FeedForwardOptions,
  gelu,
  LayerNorm,
  Linear,
  type LinearOptions,
  type NormOptions,
  RMSNorm,
} from "./layers.js";
export { LossScale, type LossScaleSettings, type LossScaleState } from "./lossScale.js";
export { Module } from "./module.js";
export { Parameter } from "./parameter.js";
export { convertArray, type PublishedTensor, pack, publishedShape, unpack, whole } from "./published.js";
export * as schedules from "./schedule.js";
export { cosine, type DecayOptions, type Schedule, type WarmupOptions, wsd } from "./schedule.js";
export { type TrainStepOptions, type TrainStepResult, trainStep } from "./trainStep.js";
