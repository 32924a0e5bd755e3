// Layer: datasets. Training on packed documents: windows side by side over one store or several, in a random order of which nothing is kept,
// with the places where documents meet. A position is a few numbers that can be saved. Knows no file and no model.
import type { Batch, Batches, BatchOptions, BatchState } from "./batches.js";
import { Permutation } from "./permutation.js";
import { StoreError, type TokenSource } from "./token-source.js";

/** A target of this value is left out of the loss (`softmaxCrossEntropy` of `@diffmamba/tensor` takes it so). */
export const ignoredTarget = -100;

/** A source and how large its share of the windows is, beside those of the others. */
export interface WeightedSource {
  readonly source: TokenSource;
  readonly weight: number;
}

export interface PackedOptions extends BatchOptions {
  /** Of the order of the windows; each time that a source has been gone through it is another one. */
  readonly seed: number;
  /** Takes the windows in their own order. */
  readonly ordered?: boolean;
  /** Leaves the first token of a document out of the loss of the token before it; so it is unless told. */
  readonly maskBoundaries?: boolean;
}

/** Where the windows stand, as JSON. */
export interface PackedState extends Omit<BatchState, "kind" | "tokens"> {
  readonly kind: "packed";
  /** Windows taken of each source. */
  readonly taken: readonly number[];
  /** Tokens and weight of each source, by which other ones are noticed. */
  readonly tokens: readonly number[];
  readonly weights: readonly number[];
  readonly ordered: boolean;
}

/** One source's windows, in their order. */
class Windows {
  readonly count: number;
  #order: Permutation;

  constructor(
    readonly source: TokenSource,
    readonly options: PackedOptions,
  ) {
    this.count = Math.floor((source.length - 1) / options.length);
    if (this.count < 1) {
      throw new StoreError(
        source.name,
        `it holds ${source.length} tokens, but a window of ${options.length} and its last target want ${options.length + 1}; ` +
          "use more data or a smaller length",
      );
    }
    this.#order = new Permutation(this.count, options.seed, 0);
  }

  /** First token of the n-th window that is taken. */
  #start(n: number): number {
    const epoch = Math.floor(n / this.count);
    const place = n % this.count;
    if (this.options.ordered) return place * this.options.length;
    if (this.#order.round !== epoch) this.#order = new Permutation(this.count, this.options.seed, epoch);
    return this.#order.at(place) * this.options.length;
  }

  /** Reads the n-th window into a row of a batch. */
  async read(n: number, tokens: Int32Array, targets: Int32Array, seqIdx: Int32Array): Promise<void> {
    const { length, maskBoundaries = true } = this.options;
    const start = this.#start(n);
    const [ids, boundaries] = await Promise.all([
      this.source.read(start, length + 1),
      this.source.documents?.startsBetween(start, start + length + 1) ?? [],
    ]);
    tokens.set(ids.subarray(0, length));
    targets.set(ids.subarray(1));
    for (const boundary of boundaries) {
      const at = boundary - start;
      for (let i = at; i < length; i++) seqIdx[i] = (seqIdx[i] as number) + 1;
      if (maskBoundaries) targets[at - 1] = ignoredTarget;
    }
  }
}

class PackedBatches implements Batches {
  readonly batchesPerEpoch: number;
  readonly #windows: readonly Windows[];
  readonly #weights: readonly number[];
  readonly #packs: boolean;
  #taken: number[];
  #step = 0;

  constructor(
    sources: readonly WeightedSource[],
    readonly options: PackedOptions,
  ) {
    for (const [name, value] of Object.entries({ batchSize: options.batchSize, length: options.length })) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new RangeError(`packed windows: "${name}" wants a whole number above 0, got ${value}`);
      }
    }
    if (sources.length === 0) throw new RangeError("packed windows: there is no source");
    for (const { source, weight } of sources) {
      if (weight > 0 && Number.isFinite(weight)) continue;
      throw new RangeError(`${source.name}: its weight wants to be a number above 0, got ${weight}`);
    }
    const sum = sources.reduce((total, { weight }) => total + weight, 0);
    this.#weights = sources.map(({ weight }) => weight / sum);
    this.#windows = sources.map(({ source }) => new Windows(source, options));
    this.#packs = sources.some(({ source }) => source.documents !== undefined);
    this.#taken = sources.map(() => 0);
    const total = this.#windows.reduce((windows, { count }) => windows + count, 0);
    this.batchesPerEpoch = Math.max(1, Math.floor(total / options.batchSize));
  }

  /** The source that is furthest behind its share, the first of several: at no moment is one a window ahead of it. */
  #next(taken: readonly number[]): number {
    const total = taken.reduce((sum, count) => sum + count, 0) + 1;
    let [best, most] = [0, -Infinity];
    for (const [i, weight] of this.#weights.entries()) {
      const behind = weight * total - (taken[i] as number);
      if (behind > most) [best, most] = [i, behind];
    }
    return best;
  }

  async nextBatch(): Promise<Batch> {
    const { batchSize, length } = this.options;
    const [tokens, targets, seqIdx] = [0, 0, 0].map(() => new Int32Array(batchSize * length)) as [
      Int32Array,
      Int32Array,
      Int32Array,
    ];
    const taken = [...this.#taken];
    const step = this.#step;
    const epoch = Math.min(...this.#windows.map(({ count }, i) => Math.floor((taken[i] as number) / count)));
    const rows: Promise<void>[] = [];
    for (let row = 0; row < batchSize; row++) {
      const from = this.#next(taken);
      const n = taken[from] as number;
      taken[from] = n + 1;
      const [begin, end] = [row * length, (row + 1) * length];
      rows.push(
        (this.#windows[from] as Windows).read(
          n,
          tokens.subarray(begin, end),
          targets.subarray(begin, end),
          seqIdx.subarray(begin, end),
        ),
      );
    }
    await Promise.all(rows);
    this.#taken = taken;
    this.#step = step + 1;
    return { tokens, targets, batchSize, length, epoch, step, ...(this.#packs && { seqIdx }) };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch> {
    for (;;) yield await this.nextBatch();
  }

  state(): PackedState {
    const { batchSize, length, seed, ordered = false } = this.options;
    return {
      kind: "packed",
      version: 1,
      step: this.#step,
      batchSize,
      length,
      seed,
      ordered,
      taken: [...this.#taken],
      tokens: this.#windows.map(({ source }) => source.length),
      weights: [...this.#weights],
    };
  }

  restore(state: unknown): void {
    const saved = (typeof state === "object" && state !== null ? state : {}) as Partial<
      Record<keyof PackedState, unknown>
    >;
    const own = this.state();
    const { name } = (this.#windows[0] as Windows).source;
    for (const key of ["kind", "version", "batchSize", "length", "seed", "ordered", "tokens", "weights"] as const) {
      const [theirs, ours] = [JSON.stringify(saved[key]), JSON.stringify(own[key])];
      if (theirs === ours) continue;
      throw new StoreError(
        name,
        `the saved data position has "${key}" ${theirs}, but this run has ${ours}; ` +
          "resume with the settings and the data of the run that saved it",
      );
    }
    const { step, taken } = saved;
    const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
    const sum = Array.isArray(taken) && taken.every(isCount) ? taken.reduce((total, count) => total + count, 0) : -1;
    if (!isCount(step) || !Array.isArray(taken) || taken.length !== own.taken.length || sum !== step * own.batchSize) {
      throw new StoreError(
        name,
        `the saved data position has "step" ${JSON.stringify(step)} and "taken" ${JSON.stringify(taken)}, which do not go together`,
      );
    }
    this.#step = step;
    this.#taken = [...taken];
  }
}

/**
 * Windows of `length` tokens side by side over each source (what is left at its end is dropped), in a random order that differs each time a
 * source has been gone through: every window once before any comes again. Where a source knows its documents, `seqIdx` says where they
 * meet, so that a model's state starts anew there. Several sources are mixed window by window as their weights say. Never ends.
 */
export function packedBatches(source: TokenSource | readonly WeightedSource[], options: PackedOptions): Batches {
  const sources = "read" in source ? [{ source, weight: 1 }] : source;
  return new PackedBatches(sources, options);
}
