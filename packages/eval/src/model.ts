// Layer: eval. What a task asks of a model: three calls, on text. A recurrent model, a table of probabilities, a service behind an
// address or a cache in front of any of them can answer.
// Knows requests and answers. Knows no tokenizer, no tensor and no task.

/** How likely is this continuation of this context? */
export interface ContinuationRequest {
  /** May be empty: then the model begins with its own first token. */
  readonly context: string;
  readonly continuation: string;
}

export interface ContinuationScore {
  /** Nats, at most 0: the sum over the continuation's tokens. */
  readonly logLikelihood: number;
  /** Whether each token of the continuation is the likeliest at its place. */
  readonly greedy: boolean;
}

/** What follows this context? */
export interface GenerationRequest {
  readonly context: string;
  /** Texts that end the answer, and are no part of it. */
  readonly until: readonly string[];
  /** New tokens at most. */
  readonly maxTokens: number;
  /** 0 for the likeliest token always. */
  readonly temperature: number;
  /** Of the draws, where the temperature is above 0. */
  readonly seed: number;
}

/** An answer with the number of its request. */
export interface Answer<T> {
  readonly index: number;
  readonly result: T;
}

export interface CallOptions<T> {
  /** Ends the call between two batches; it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Gets answers as they are known, in any order; the call waits for it. */
  readonly onAnswers?: (answers: readonly Answer<T>[]) => void | Promise<void>;
}

/** Answers come in the order of their requests. */
export interface EvaluatedModel {
  loglikelihood(
    requests: readonly ContinuationRequest[],
    options?: CallOptions<ContinuationScore>,
  ): Promise<ContinuationScore[]>;
  /** Nats of a whole text, each token after all those before it. */
  loglikelihoodRolling(texts: readonly string[], options?: CallOptions<number>): Promise<number[]>;
  generateUntil(requests: readonly GenerationRequest[], options?: CallOptions<string>): Promise<string[]>;
}
