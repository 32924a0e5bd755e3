// Layer: eval. The public entry: perplexity and bits per byte, loss by position, tasks, and what a task asks of a model.
export { type CacheOptions, cachedModel } from "./cache.js";
export { type CarriedModel, type CarriedRows, carried } from "./carried.js";
export { encodePair, RequestError, type TextTokens, type TokenPair } from "./continuation.js";
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
export { type FetchDocumentsOptions, fetchDocuments } from "./fetchDocuments.js";
export { type DocumentSource, type LongDocumentOptions, longDocuments } from "./longDocuments.js";
export { aggregations, type Metric, metrics, type Outcome, type Value } from "./metrics.js";
export type {
  Answer,
  CallOptions,
  ContinuationRequest,
  ContinuationScore,
  EvaluatedModel,
  GenerationRequest,
} from "./model.js";
export { lossByPosition, type PositionOptions, type PositionResult, smoothed } from "./positions.js";
export { type ModelText, type RecurrentOptions, recurrentModel } from "./recurrent.js";
export { type Rendered, render } from "./render.js";
export {
  type MetricResult,
  type RunTaskOptions,
  runTask,
  type TaskProgress,
  type TaskResult,
  type TaskSample,
} from "./runTask.js";
export { type Bootstrap, bootstrap, meanError } from "./statistics.js";
export { type OutputType, parseTask, type Task, TaskError } from "./task.js";
export {
  documentNames,
  exampleSplit,
  loadDocuments,
  measuredSplit,
  readDocuments,
  type TaskDocuments,
} from "./taskDocuments.js";
export { findTasks, loadTask, shippedTasks } from "./taskFiles.js";
export { type Document, TemplateError } from "./template.js";
