// @diffmamba/models: language models as configuration, their checkpoints, and generation.

export { type DepthPattern, type LambdaMode, lambdaModes } from "@diffmamba/differential";

export { AdaptiveVocabulary } from "./adaptive.js";
export { Backbone, type BackboneOptions, type ModelState, Sublayer } from "./backbone.js";
export {
  type AdaptiveConfig,
  baseOf,
  configFields,
  defaultConfig,
  type ModelConfig,
  modelConfig,
  type Variant,
  variants,
} from "./config.js";
export { ConfigError } from "./configChecks.js";
export { type Converted, type ConvertOptions, convertToDifferential, type TensorSource } from "./convert.js";
export { countParameters } from "./count.js";
export * from "./formats/index.js";
export {
  type Completion,
  complete,
  type FinishReason,
  type GenerateOptions,
  type GenerateStep,
  generate,
  type TokenDecoder,
} from "./generate.js";
export { PlainVocabulary, Vocabulary } from "./heads.js";
export { readConfig, writeConfig } from "./hf/config.js";
export { configName, describeModel, type ModelDescription, type SaveOptions, type TokenIds } from "./hf/folder.js";
export { countProbabilities, type MarkovCounterOptions, markovCounter } from "./markov.js";
export { type ForwardOptions, type LayerLambda, type LossOptions, MambaLM } from "./model.js";
export { extend, type PrefillOptions, type Prompt, prefill } from "./prefill.js";
export { preset, presetNames } from "./presets.js";
export { PromptState, type TokenRows } from "./promptState.js";
export type { SamplingOptions } from "./sampling.js";
export type { Slicing } from "./slicing.js";
