// Layer: eval. The loss at each position of long documents: what a model gains from what it has read, thousands of tokens back.
// Documents are read in windows with the state carried from one to the next. Position p is the loss of token p + 1, given
// tokens 0 to p: one shift, and no more.
// Knows models by rows that are read on. Knows no tokenizer and no plot.
import type { CarriedModel } from "./carried.js";
import { EvaluationError } from "./evaluate.js";

export interface PositionOptions {
  /** Positions of a document that are scored; what it has beyond is not read. All of the longest by default. */
  readonly length?: number;
  /** Tokens of a document read at once, which bounds the memory; the result does not depend on it. 512 by default. */
  readonly window?: number;
  /** Documents side by side; 1 by default. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly documents: number; readonly tokens: number }) => void;
}

export interface PositionResult {
  readonly documents: number;
  /** Tokens scored. */
  readonly tokens: number;
  /** Mean nats of all of them. */
  readonly nll: number;
  /** Mean nats at each position, from 0, over the documents that reach it. */
  readonly loss: readonly number[];
  /** Standard error of each; null where fewer than two documents reach it. */
  readonly stderr: readonly (number | null)[];
  /** How many documents reach each position. */
  readonly counts: readonly number[];
}

/** Sums by position, as long as the longest document so far. */
class Sums {
  readonly sum: number[] = [];
  readonly squares: number[] = [];
  readonly counts: number[] = [];

  add(position: number, loss: number): void {
    while (this.sum.length <= position) {
      this.sum.push(0);
      this.squares.push(0);
      this.counts.push(0);
    }
    this.sum[position] += loss;
    this.squares[position] += loss * loss;
    this.counts[position]++;
  }

  stderr(position: number): number | null {
    const n = this.counts[position];
    if (n < 2) return null;
    const mean = this.sum[position] / n;
    return Math.sqrt(Math.max(0, this.squares[position] / n - mean * mean) / (n - 1));
  }
}

async function* batchesOf<T>(list: AsyncIterable<T> | Iterable<T>, size: number): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const one of list) {
    batch.push(one);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

const whole = (name: string, value: number): number => {
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new EvaluationError(`lossByPosition: ${name} is ${value}; it must be a whole number above 0.`);
};

/**
 * Scores documents of at least two tokens each, in float64 sums on the host.
 * @throws EvaluationError naming the document and the position where a loss is not finite, and a document that is too short
 */
export async function lossByPosition(
  model: CarriedModel,
  documents: AsyncIterable<Int32Array> | Iterable<Int32Array>,
  options: PositionOptions = {},
): Promise<PositionResult> {
  const window = whole("window", options.window ?? 512);
  const batchSize = whole("batchSize", options.batchSize ?? 1);
  const limit = options.length === undefined ? Number.POSITIVE_INFINITY : whole("length", options.length);
  const sums = new Sums();
  let [done, tokens, nats] = [0, 0, 0];
  for await (const batch of batchesOf(documents, batchSize)) {
    const short = batch.findIndex((ids) => ids.length < 2);
    if (short >= 0) {
      throw new EvaluationError(
        `document ${done + short} has ${batch[short].length} tokens; a loss wants a token and the one that follows it.`,
      );
    }
    const scores = batch.map((ids) => Math.min(limit, ids.length - 1));
    const longest = Math.max(...scores);
    const rows = model.begin(batch.length);
    try {
      for (let start = 0; start < longest; start += window) {
        options.signal?.throwIfAborted();
        const length = Math.min(window, longest - start);
        const inputs = new Int32Array(batch.length * length);
        const targets = new Int32Array(batch.length * length);
        for (const [row, ids] of batch.entries()) {
          inputs.set(ids.subarray(start, start + length), row * length);
          targets.set(ids.subarray(start + 1, start + 1 + length), row * length);
        }
        const losses = await rows.next(inputs, targets, length);
        for (const [row, count] of scores.entries()) {
          for (let i = 0; i < Math.min(length, count - start); i++) {
            const loss = losses[row * length + i];
            if (!Number.isFinite(loss)) {
              throw new EvaluationError(
                `document ${done + row}: the model's loss at position ${start + i} is ${loss}.`,
              );
            }
            sums.add(start + i, loss);
            nats += loss;
            tokens++;
          }
        }
        options.onProgress?.({ documents: done, tokens });
        await new Promise<void>((resolve) => setTimeout(resolve));
      }
    } finally {
      rows.dispose();
    }
    done += batch.length;
  }
  if (done === 0) throw new EvaluationError("lossByPosition: there are no documents.");
  const { sum, counts } = sums;
  return {
    documents: done,
    tokens,
    nll: nats / tokens,
    loss: sum.map((value, i) => value / counts[i]),
    stderr: sum.map((_, i) => sums.stderr(i)),
    counts,
  };
}

/** A curve without its noise: the mean over `width` positions around each, fewer at the ends. */
export function smoothed(values: readonly number[], width = 101): number[] {
  const half = Math.floor(width / 2);
  const before = [0];
  for (const value of values) before.push(before[before.length - 1] + value);
  return values.map((_, i) => {
    const [low, high] = [Math.max(0, i - half), Math.min(values.length, i + half + 1)];
    return (before[high] - before[low]) / (high - low);
  });
}
