// Layer: eval, for tests. A model whose answers are known: a table of log-likelihoods, asked by the three calls.
// Knows requests. Knows no tokenizer and no tensor.
import type {
  CallOptions,
  ContinuationRequest,
  ContinuationScore,
  EvaluatedModel,
  GenerationRequest,
} from "./index.js";

export type Table = readonly (readonly [
  context: string,
  continuation: string,
  logLikelihood: number,
  greedy?: boolean,
])[];

/** Answers what the table holds, and refuses everything else: a request must be exactly as expected. */
export class TableModel implements EvaluatedModel {
  readonly asked: (ContinuationRequest | GenerationRequest | string)[] = [];

  constructor(
    readonly table: Table,
    readonly texts: ReadonlyMap<string, number> = new Map(),
    readonly answers: ReadonlyMap<string, string> = new Map(),
  ) {}

  async #answer<R extends ContinuationRequest | GenerationRequest | string, T>(
    requests: readonly R[],
    { onAnswers }: CallOptions<T>,
    find: (request: R) => T | undefined,
  ): Promise<T[]> {
    this.asked.push(...requests);
    const results = requests.map((request) => {
      const found = find(request);
      if (found === undefined) throw new Error(`the table has no answer to ${JSON.stringify(request)}`);
      return found;
    });
    await onAnswers?.(results.map((result, index) => ({ index, result })));
    return results;
  }

  loglikelihood(requests: readonly ContinuationRequest[], call: CallOptions<ContinuationScore> = {}) {
    return this.#answer(requests, call, ({ context, continuation }) => {
      const row = this.table.find(([before, after]) => before === context && after === continuation);
      return row && { logLikelihood: row[2], greedy: row[3] ?? false };
    });
  }

  loglikelihoodRolling(texts: readonly string[], call: CallOptions<number> = {}) {
    return this.#answer(texts, call, (text) => this.texts.get(text));
  }

  generateUntil(requests: readonly GenerationRequest[], call: CallOptions<string> = {}) {
    return this.#answer(requests, call, ({ context }) => this.answers.get(context));
  }
}
