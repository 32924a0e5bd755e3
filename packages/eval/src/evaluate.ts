// Layer: eval. Scores a row of tokens with a model: perplexity, bits per byte and per character, loss by position.
// Knows models by their loss and tokens by position. Knows no kind of model, no file and no tokenizer by name.
import { type Batch, rowBatches, type TokenSource, windowBatches } from "@diffmamba/datasets";
import { type Device, noGrad, scope, type Tensor } from "@diffmamba/tensor";
import { TextExtent, type TextMeasure } from "./extent.js";

/**
 * "windows": the successive windows of the text side by side in a batch: N tokens give N - 1 scores.
 * "rows": as the paper's code (and Transformer-XL's): the text is cut into as many rows as a batch holds, what is left over at the
 * end is dropped, a batch is the k-th window of every row, and the first token of each row is no target.
 */
export type Batching = "windows" | "rows";

/** What is needed of a model; `MambaLM` of @diffmamba/models is one. */
export interface ScoredModel {
  readonly device: Device;
  /** True in training mode. */
  readonly training: boolean;
  /** Switches training mode; evaluation runs without and restores what was. */
  train(training?: boolean): unknown;
  /** tokens, targets: (B, L) i32 -> (B, L) nats, each window from a zero state. */
  loss(tokens: Tensor, targets: Tensor, options: { readonly reduction: "none" }): Tensor;
}

/** How far an evaluation has come. */
export interface EvaluationProgress {
  readonly tokens: number;
  readonly total: number;
  /** Nats a token so far. */
  readonly nll: number;
}

export interface EvaluateOptions {
  /** Tokens of a window: the length that the model was trained with. */
  readonly length: number;
  /** Windows (or rows) at once. */
  readonly batchSize: number;
  /** "windows" unless told. */
  readonly batching?: Batching;
  /** Measures the text that the tokens stand for: bits per byte and per character need it. A tokenizer is one. */
  readonly text?: TextMeasure;
  /** Scores about so many tokens, in whole windows spread evenly over the source; with "windows" only. All of them unless told. */
  readonly maxTokens?: number;
  /** Stops between two batches; then `evaluate` rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Called after every batch. */
  readonly onProgress?: (progress: EvaluationProgress) => void;
}

export interface EvaluationResult {
  /** Tokens scored: one less than there are, as the first has nothing before it (`batching: "rows"`: see there). */
  readonly tokens: number;
  /** Mean over all scored tokens, in nats a token. */
  readonly nll: number;
  /** exp(nll). */
  readonly ppl: number;
  /** Total nats / ln 2 / bytes of UTF-8 of the scored text; absent without `text`. */
  readonly bpb?: number;
  /** Total nats / ln 2 / characters (code points) of the scored text; absent without `text`. */
  readonly bpc?: number;
  /** Bytes and characters of the scored text; absent without `text`. */
  readonly bytes?: number;
  readonly characters?: number;
  /** The paper's perplexity: exp of each batch's mean loss, averaged over batches of equal weight, the shorter last one too. */
  readonly pplBatchMean: number;
  /** The paper's "bpb": each batch's mean loss / ln 2, averaged the same way. Bits a token, whatever a token is. */
  readonly bpbBatchMean: number;
  readonly batches: number;
  /** Mean nats at each position of a window, from 0. */
  readonly lossByPosition: readonly number[];
}

/** A model whose loss is no number, or an option that is none. The message names the data and the place. */
export class EvaluationError extends Error {
  override readonly name = "EvaluationError";
}

/** `count` of the windows of a source, spread evenly over it. */
async function* spreadBatches(source: TokenSource, length: number, batchSize: number, count: number) {
  const whole = Math.floor((source.length - 1) / length);
  for (let first = 0; first < count; first += batchSize) {
    const size = Math.min(batchSize, count - first);
    const starts = Array.from({ length: size }, (_, i) => Math.floor(((first + i) * whole) / count) * length);
    const tokens = new Int32Array(size * length);
    const targets = new Int32Array(size * length);
    for (const [row, start] of starts.entries()) {
      const ids = await source.read(start, length + 1);
      tokens.set(ids.subarray(0, length), row * length);
      targets.set(ids.subarray(1), row * length);
    }
    yield { tokens, targets, batchSize: size, length, starts, rows: starts };
  }
}

/** Some rows to score at once: where each starts in the source, and which row of text each goes on. */
interface Part extends Pick<Batch, "tokens" | "targets" | "batchSize" | "length"> {
  readonly starts: readonly number[];
  readonly rows: readonly number[];
}

const indices = (count: number) => Array.from({ length: count }, (_, i) => i);

/** The parts to score, and how many tokens they hold. */
function plan(source: TokenSource, options: EvaluateOptions): { total: number; parts: AsyncIterable<Part> } {
  const { length, batchSize, batching = "windows", maxTokens } = options;
  if (maxTokens !== undefined && !(Number.isSafeInteger(maxTokens) && maxTokens > 0)) {
    throw new EvaluationError(`evaluate: maxTokens is ${maxTokens}; it must be a whole number above 0.`);
  }
  if (batching === "rows") {
    if (maxTokens !== undefined) throw new EvaluationError('evaluate: maxTokens does not go with batching "rows".');
    const rowLength = Math.floor(source.length / batchSize);
    const place = ({ step }: Batch) => indices(batchSize).map((row) => row * rowLength + step * length);
    const parts = rowBatches(source, { length, batchSize, epochs: 1 });
    return { total: batchSize * (rowLength - 1), parts: placed(parts, place, indices(batchSize)) };
  }
  const scores = source.length - 1;
  const windows = Math.max(1, Math.floor((maxTokens ?? scores) / length));
  if (maxTokens !== undefined && maxTokens < scores && windows * length < scores) {
    return { total: windows * length, parts: spreadBatches(source, length, batchSize, windows) };
  }
  const place = (batch: Batch) => indices(batch.batchSize).map((row) => (batch.step * batchSize + row) * length);
  return { total: scores, parts: placed(windowBatches(source, { length, batchSize }), place, []) };
}

/** Batches of the data package with their places; without `rows` all are one text. */
async function* placed(
  batches: AsyncIterable<Batch>,
  place: (batch: Batch) => readonly number[],
  rows: readonly number[],
): AsyncGenerator<Part> {
  for await (const batch of batches) {
    const starts = place(batch);
    yield { ...batch, starts, rows: rows.length > 0 ? rows : starts.map(() => 0) };
  }
}

/** One loss a token, row by row. All that was made on the way is freed. */
async function lossesOf(model: ScoredModel, { tokens, targets, batchSize, length }: Part) {
  using losses = noGrad(() =>
    scope(() => {
      const { device } = model;
      const shape = [batchSize, length];
      return model.loss(device.from(tokens, shape, "i32"), device.from(targets, shape, "i32"), { reduction: "none" });
    }),
  );
  if (losses.size !== tokens.length) {
    throw new EvaluationError(
      `evaluate: the model gave ${losses.size} losses for ${tokens.length} tokens; "none" asks for one a token.`,
    );
  }
  return losses.data();
}

/** Lets timers, signals and page events through. */
const breathe = () => new Promise<void>((resolve) => setTimeout(resolve));

/**
 * Scores `source` in non-overlapping windows, each from a zero state; the target is the next token. Losses are summed on the host in
 * float64, in order, so that the same bits come out every time.
 * @throws StoreError where there is too little data; EvaluationError where a loss is not finite; what the source and the model throw
 */
export async function evaluate(
  model: ScoredModel,
  source: TokenSource,
  options: EvaluateOptions,
): Promise<EvaluationResult> {
  const { parts, total } = plan(source, options);
  const extent = options.text && new TextExtent(options.text);
  const sums = new Float64Array(Math.max(0, Math.min(options.length, total)));
  const counts = new Float64Array(sums.length);
  let [tokens, nats, count, pplSum, bitsSum] = [0, 0, 0, 0, 0];
  const { training } = model;
  model.train(false);
  try {
    for await (const part of parts) {
      options.signal?.throwIfAborted();
      const { length, targets, starts, rows } = part;
      const losses = await lossesOf(model, part);
      let batchNats = 0;
      for (let i = 0; i < losses.length; i++) {
        const loss = losses[i];
        if (!Number.isFinite(loss)) {
          const place = starts[Math.floor(i / length)] + (i % length) + 1;
          throw new EvaluationError(`${source.name}: the model's loss at token ${place} is ${loss}.`);
        }
        sums[i % length] += loss;
        counts[i % length]++;
        batchNats += loss;
      }
      for (const [i, row] of rows.entries()) extent?.push(row, targets.subarray(i * length, (i + 1) * length));
      tokens += losses.length;
      nats += batchNats;
      count++;
      pplSum += Math.exp(batchNats / losses.length);
      bitsSum += batchNats / losses.length / Math.LN2;
      options.onProgress?.({ tokens, total, nll: nats / tokens });
      await breathe();
    }
  } finally {
    model.train(training);
  }
  return {
    tokens,
    nll: nats / tokens,
    ppl: Math.exp(nats / tokens),
    ...(extent && textScores(nats, extent)),
    pplBatchMean: pplSum / count,
    bpbBatchMean: bitsSum / count,
    batches: count,
    lossByPosition: Array.from(sums, (sum, i) => sum / counts[i]),
  };
}

function textScores(nats: number, extent: TextExtent) {
  const characters = extent.end();
  const { bytes } = extent;
  return { bpb: nats / Math.LN2 / bytes, bpc: nats / Math.LN2 / characters, bytes, characters };
}
