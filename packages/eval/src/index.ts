// Layer: eval. The public entry: perplexity, bits per byte and per character, and loss by position.
export {
  type Batching,
  type EvaluateOptions,
  EvaluationError,
  type EvaluationProgress,
  type EvaluationResult,
  evaluate,
  type ScoredModel,
} from "./evaluate.js";
export type { TextMeasure } from "./extent.js";
