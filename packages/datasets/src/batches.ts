// Layer: datasets. From a row of tokens to batches: the paper's ordered iterator, random windows, and the windows of an evaluation.
// A position is a number that can be saved: what comes next depends on it and on the settings alone. Knows no file and no model.

import { RandomStream } from "@diffmamba/random";
import { Mersenne } from "./mersenne.js";
import { StoreError, type TokenSource } from "./token-source.js";

/** `batchSize` rows of `length` tokens, and for each token the one that follows it. */
export interface Batch {
  /** (batchSize, length), row by row. */
  readonly tokens: Int32Array;
  /** (batchSize, length): `targets[i]` is the token after `tokens[i]`. */
  readonly targets: Int32Array;
  /** (batchSize, length): which document of its row each token belongs to, from 0; absent where no documents are known. */
  readonly seqIdx?: Int32Array;
  readonly batchSize: number;
  /** The last window of an epoch may be shorter than the others. */
  readonly length: number;
  /** How often the source has been gone through, from 0. */
  readonly epoch: number;
  /** Number of the batch, from 0, over all epochs. */
  readonly step: number;
}

/** Where an iterator stands, as JSON. */
export interface BatchState {
  readonly kind: "rows" | "random" | "packed";
  readonly version: 1;
  /** The batch that comes next. */
  readonly step: number;
  readonly batchSize: number;
  readonly length: number;
  /** The seed, or null where nothing is random. */
  readonly seed: number | null;
  /** Tokens of the source (of each, where there are several), by which another one is noticed. */
  readonly tokens: number | readonly number[];
}

/** Batches with a position. Iterating goes on from where it stands; it ends only where `epochs` says so. */
export interface Batches extends AsyncIterable<Batch> {
  readonly batchesPerEpoch: number;
  /** The next batch, or undefined behind the last epoch. The position moves only once the batch has been read. */
  nextBatch(): Promise<Batch | undefined>;
  state(): BatchState;
  /** @throws StoreError naming what differs where the position is of other settings or of another source */
  restore(state: unknown): void;
}

export interface BatchOptions {
  readonly batchSize: number;
  /** Tokens of a window. */
  readonly length: number;
}

function checkShape(source: TokenSource, { batchSize, length }: BatchOptions): void {
  for (const [name, value] of Object.entries({ batchSize, length })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(`${source.name}: "${name}" wants a whole number above 0, got ${value}`);
    }
  }
}

/** What the two iterators share: a step, its saving and restoring. */
abstract class Stepped implements Batches {
  abstract readonly batchesPerEpoch: number;
  protected abstract readonly kind: BatchState["kind"];
  protected abstract readonly seed: number | null;
  #step = 0;

  constructor(
    protected readonly source: TokenSource,
    protected readonly options: BatchOptions,
    private readonly epochs: number,
  ) {
    checkShape(source, options);
  }

  protected abstract read(step: number): Promise<Batch>;

  async nextBatch(): Promise<Batch | undefined> {
    if (this.#step >= this.epochs * this.batchesPerEpoch) return undefined;
    const batch = await this.read(this.#step);
    this.#step = batch.step + 1;
    return batch;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch> {
    for (;;) {
      const batch = await this.nextBatch();
      if (!batch) return;
      yield batch;
    }
  }

  state(): BatchState {
    const { batchSize, length } = this.options;
    return {
      kind: this.kind,
      version: 1,
      step: this.#step,
      batchSize,
      length,
      seed: this.seed,
      tokens: this.source.length,
    };
  }

  restore(state: unknown): void {
    const saved = (typeof state === "object" && state !== null ? state : {}) as Partial<
      Record<keyof BatchState, unknown>
    >;
    const own = this.state();
    for (const key of ["kind", "version", "batchSize", "length", "seed", "tokens"] as const) {
      if (saved[key] === own[key]) continue;
      throw new StoreError(
        this.source.name,
        `the saved data position has "${key}" ${JSON.stringify(saved[key])}, but this run has ${JSON.stringify(own[key])}; ` +
          "resume with the settings and the data of the run that saved it",
      );
    }
    const { step } = saved;
    if (!Number.isSafeInteger(step) || (step as number) < 0) {
      throw new StoreError(
        this.source.name,
        `the saved data position has "step" ${JSON.stringify(step)}; expected a count`,
      );
    }
    this.#step = step as number;
  }
}

/** Copies rows of `length + 1` tokens into a batch, the targets one ahead. */
function batchOf(rows: readonly Int32Array[], length: number, epoch: number, step: number): Batch {
  const tokens = new Int32Array(rows.length * length);
  const targets = new Int32Array(rows.length * length);
  rows.forEach((row, i) => {
    tokens.set(row.subarray(0, length), i * length);
    targets.set(row.subarray(1, length + 1), i * length);
  });
  return { tokens, targets, batchSize: rows.length, length, epoch, step };
}

class RowBatches extends Stepped {
  protected readonly kind = "rows";
  readonly batchesPerEpoch: number;
  /** Tokens of a row. */
  readonly #rowLength: number;
  /** By how much each row is rotated in the epoch `#rotated`. */
  readonly #offsets: Float64Array;
  #rotated = -1;

  constructor(
    source: TokenSource,
    options: BatchOptions & { readonly epochs: number },
    protected readonly seed: number | null,
  ) {
    super(source, options, options.epochs);
    const { batchSize, length } = options;
    this.#rowLength = Math.floor(source.length / batchSize);
    this.#offsets = new Float64Array(batchSize);
    if (this.#rowLength < 2) {
      throw new StoreError(
        source.name,
        `it holds ${source.length} tokens, but ${batchSize} rows want at least 2 each; use more data or a batch of at most ` +
          `${Math.floor(source.length / 2)}`,
      );
    }
    this.batchesPerEpoch = Math.ceil((this.#rowLength - 1) / length);
  }

  /** The offsets of an epoch: those of every epoch up to it, added up, as the reference rotates its rows in place. */
  #rotate(epoch: number): Float64Array {
    if (this.seed === null || epoch === this.#rotated) return this.#offsets;
    if (epoch < this.#rotated) {
      this.#offsets.fill(0);
      this.#rotated = -1;
    }
    while (this.#rotated < epoch) {
      this.#rotated++;
      const random = new Mersenne((this.seed + this.#rotated) >>> 0);
      for (let row = 0; row < this.#offsets.length; row++) {
        const offset = random.word() % this.#rowLength;
        this.#offsets[row] = ((this.#offsets[row] as number) + offset) % this.#rowLength;
      }
    }
    return this.#offsets;
  }

  protected async read(step: number): Promise<Batch> {
    const epoch = Math.floor(step / this.batchesPerEpoch);
    const start = (step % this.batchesPerEpoch) * this.options.length;
    const length = Math.min(this.options.length, this.#rowLength - 1 - start);
    const offsets = this.#rotate(epoch).slice();
    const rows = await Promise.all(
      Array.from(offsets, (offset, row) => this.#readRow(row, start + offset, length + 1)),
    );
    return batchOf(rows, length, epoch, step);
  }

  /** `count` tokens of a row from `from` on, around its end. */
  async #readRow(row: number, from: number, count: number): Promise<Int32Array> {
    const base = row * this.#rowLength;
    const start = from % this.#rowLength;
    const first = Math.min(count, this.#rowLength - start);
    const head = await this.source.read(base + start, first);
    if (first === count) return head;
    const whole = new Int32Array(count);
    whole.set(head);
    whole.set(await this.source.read(base, count - first), first);
    return whole;
  }
}

/**
 * The paper's iterator (arXiv 2507.06204's code, `LMOrderedIterator`): the source is cut into `batchSize` rows of equal length (what is
 * left over is dropped), and each batch is the next `length` tokens of every row; the last window of an epoch may be shorter. With a
 * seed, each row is rotated by a random offset at the start of each epoch, `torch.randint` seeded with `rotateSeed + epoch`, and the
 * rotations add up. The paper trains with seed 42 and evaluates without rotation, for one epoch.
 */
export function rowBatches(
  source: TokenSource,
  options: BatchOptions & { readonly rotateSeed?: number; readonly epochs?: number },
): Batches {
  const { rotateSeed, epochs = Infinity } = options;
  return new RowBatches(source, { ...options, epochs }, rotateSeed ?? null);
}

class RandomBatches extends Stepped {
  protected readonly kind = "random";
  readonly batchesPerEpoch: number;
  readonly #random: RandomStream;

  constructor(
    source: TokenSource,
    options: BatchOptions,
    protected readonly seed: number,
  ) {
    super(source, options, Infinity);
    if (source.length < options.length + 1) {
      throw new StoreError(
        source.name,
        `it holds ${source.length} tokens, but a window of ${options.length} and its last target want ${options.length + 1}; ` +
          "use more data or a smaller length",
      );
    }
    this.batchesPerEpoch = Math.max(1, Math.floor(source.length / (options.batchSize * options.length)));
    this.#random = new RandomStream(seed, "data windows");
  }

  protected async read(step: number): Promise<Batch> {
    const { batchSize, length } = this.options;
    const places = this.source.length - length;
    const starts = Array.from({ length: batchSize }, (_, row) => this.#random.integer(places, row, step));
    const rows = await Promise.all(starts.map((start) => this.source.read(start, length + 1)));
    return batchOf(rows, length, Math.floor(step / this.batchesPerEpoch), step);
  }
}

/** Windows from random places, drawn with replacement; an epoch is as many batches as hold the source's tokens once. Never ends. */
export function randomBatches(source: TokenSource, options: BatchOptions & { readonly seed: number }): Batches {
  return new RandomBatches(source, options, options.seed);
}

/**
 * The windows of an evaluation: side by side from the start, none overlapping, every token but the first a target once: N tokens
 * give N - 1 scores. Each row is a window of its own; a last, shorter window comes as a batch of one.
 */
export async function* windowBatches(source: TokenSource, options: BatchOptions): AsyncGenerator<Batch> {
  checkShape(source, options);
  const { batchSize, length } = options;
  if (source.length < 2) {
    throw new StoreError(
      source.name,
      `it holds ${source.length} tokens; a score wants a token and its target, so at least 2`,
    );
  }
  const scores = source.length - 1;
  const whole = Math.floor(scores / length);
  let step = 0;
  for (let window = 0; window < whole; window += batchSize) {
    const rows = Math.min(batchSize, whole - window);
    const ids = await source.read(window * length, rows * length + 1);
    const windows = Array.from({ length: rows }, (_, row) => ids.subarray(row * length, (row + 1) * length + 1));
    yield batchOf(windows, length, 0, step++);
  }
  const rest = scores - whole * length;
  if (rest > 0) yield batchOf([await source.read(whole * length, rest + 1)], rest, 0, step);
}
