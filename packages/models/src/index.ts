// @diffmamba/models: language models as configuration, their checkpoints, and generation.

export { type DepthPattern, type LambdaMode, lambdaModes } from "@diffmamba/differential";

export { AdaptiveVocabulary } from "./adaptive.js";
export { Backbone, type BackboneOptions, type ModelState, Sublayer } from "./backbone.js";
export {
  baseOf,
  ConfigError,
  configFields,
  defaultConfig,
  type ModelConfig,
  modelConfig,
  type Variant,
  variants,
} from "./config.js";
export * from "./formats/index.js";
export { PlainVocabulary, Vocabulary } from "./heads.js";
export { MambaLM } from "./model.js";
