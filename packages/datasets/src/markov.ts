// Layer: datasets. Random Markov chains, each row of a batch from a chain of its own, so that a model can only learn to read the
// chain from what it has seen of the row; and the add-beta rule, which is the best that can be done.
// Knows numbers and streams. Knows no model and no file.
import { RandomStream } from "@diffmamba/random";
import type { Batch } from "./batches.js";

export interface MarkovOptions {
  /** How many symbols the next one depends on; 1 by default. */
  readonly order?: number;
  /** S; 2 by default. */
  readonly symbols?: number;
  /** Each row of transition probabilities is drawn from the symmetric Dirichlet distribution of this; 1 (uniform) by default. */
  readonly beta?: number;
  readonly seed: number;
}

/** @throws RangeError naming the option */
function checkOptions({ order = 1, symbols = 2, beta = 1 }: Omit<MarkovOptions, "seed">) {
  for (const [name, value, least] of [
    ["order", order, 0],
    ["symbols", symbols, 2],
  ] as const) {
    if (!(Number.isSafeInteger(value) && value >= least)) {
      throw new RangeError(`Markov chain: "${name}" wants a whole number of at least ${least}, got ${value}`);
    }
  }
  if (!(beta > 0 && Number.isFinite(beta)))
    throw new RangeError(`Markov chain: "beta" wants a number above 0, got ${beta}`);
  const contexts = symbols ** order;
  if (contexts > 1e6)
    throw new RangeError(`Markov chain: ${symbols} symbols of order ${order} have ${contexts} contexts, more than 1e6`);
  return { order, symbols, beta, contexts };
}

/** Chains without end, and sequences of them; what a chain and a sequence are depends on the seed and their number alone. */
export class MarkovChains {
  readonly order: number;
  readonly symbols: number;
  readonly beta: number;
  readonly #contexts: number;
  readonly #transitions: RandomStream;
  readonly #symbols: RandomStream;

  /** @throws RangeError naming the option */
  constructor(options: MarkovOptions) {
    const { order, symbols, beta, contexts } = checkOptions(options);
    [this.order, this.symbols, this.beta, this.#contexts] = [order, symbols, beta, contexts];
    this.#transitions = new RandomStream(options.seed, "Markov transitions");
    this.#symbols = new RandomStream(options.seed, "Markov symbols");
  }

  /** (S^k, S), row by row: what follows each context with what probability. A context is a number in base S, its oldest symbol first. */
  transitions(chain: number): Float64Array {
    const { symbols, beta } = this;
    const table = new Float64Array(this.#contexts * symbols);
    let element = 0;
    const draw = () => this.#transitions.at(element++, chain);
    for (let row = 0; row < table.length; row += symbols) {
      let total = 0;
      for (let i = row; i < row + symbols; i++) {
        table[i] = gamma(beta, draw);
        total += table[i];
      }
      for (let i = row; i < row + symbols; i++) table[i] = total > 0 ? table[i] / total : 1 / symbols;
    }
    return table;
  }

  /** `length` symbols of a chain; the first k are uniform. */
  sequence(chain: number, length: number): Int32Array {
    const { order, symbols } = this;
    const table = this.transitions(chain);
    const out = new Int32Array(length);
    let context = 0;
    for (let t = 0; t < length; t++) {
      const u = this.#symbols.at(t, chain);
      out[t] = t < order ? Math.floor(u * symbols) : pick(table, context * symbols, symbols, u);
      context = (context * symbols + out[t]) % this.#contexts;
    }
    return out;
  }

  /** Batch number `step`: rows of chains that no other step has, with the symbols that follow as targets. */
  batch(step: number, { batchSize, length }: { readonly batchSize: number; readonly length: number }): Batch {
    const tokens = new Int32Array(batchSize * length);
    const targets = new Int32Array(batchSize * length);
    for (let row = 0; row < batchSize; row++) {
      const sequence = this.sequence(step * batchSize + row, length + 1);
      tokens.set(sequence.subarray(0, length), row * length);
      targets.set(sequence.subarray(1), row * length);
    }
    return { tokens, targets, batchSize, length, epoch: 0, step };
  }
}

/** The symbol at `u` of [0, 1) of a row of probabilities. */
function pick(table: Float64Array, row: number, symbols: number, u: number): number {
  let sum = 0;
  for (let symbol = 0; symbol < symbols - 1; symbol++) {
    sum += table[row + symbol];
    if (u < sum) return symbol;
  }
  return symbols - 1;
}

/** A number of the Gamma distribution of this shape (Marsaglia and Tsang 2000), from uniform ones. */
function gamma(shape: number, draw: () => number): number {
  if (shape === 1) return -Math.log(1 - draw());
  if (shape < 1) return gamma(shape + 1, draw) * (1 - draw()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const normal = Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
    const v = (1 + c * normal) ** 3;
    if (v > 0 && Math.log(1 - draw()) < 0.5 * normal ** 2 + d - d * v + d * Math.log(v)) return d * v;
  }
}

/**
 * The add-beta rule: p(s | context) = (n(context, s) + beta) / (n(context) + S beta), counted over the sequence so far. For chains whose
 * rows are of the symmetric Dirichlet distribution of beta this is the true predictive probability: no model has a smaller
 * expected loss. As long as no whole context has been seen, all symbols are equally likely.
 * @param sequence symbols from 0 to S - 1
 * @returns (length, S), row by row: row t is of the symbol that follows the first t + 1
 */
export function addBeta(sequence: ArrayLike<number>, options: Omit<MarkovOptions, "seed"> = {}): Float64Array {
  const { order, symbols, beta, contexts } = checkOptions(options);
  const counts = new Float64Array(contexts * symbols);
  const out = new Float64Array(sequence.length * symbols);
  let context = 0;
  for (let t = 0; t < sequence.length; t++) {
    const symbol = sequence[t];
    if (!(Number.isSafeInteger(symbol) && symbol >= 0 && symbol < symbols)) {
      throw new RangeError(`addBeta: ${symbol} at position ${t} is none of the symbols 0 to ${symbols - 1}`);
    }
    if (t >= order) counts[context * symbols + symbol]++;
    context = (context * symbols + symbol) % contexts;
    const row = counts.subarray(context * symbols, (context + 1) * symbols);
    const known = t + 1 >= order;
    const total = known ? row.reduce((sum, n) => sum + n, 0) : 0;
    for (let s = 0; s < symbols; s++) {
      out[t * symbols + s] = known ? (row[s] + beta) / (total + symbols * beta) : 1 / symbols;
    }
  }
  return out;
}

/** Nats of each target under {@link addBeta}: what a model's losses of the same batch are compared with. (batchSize, length) */
export function addBetaLosses(batch: Batch, options: Omit<MarkovOptions, "seed"> = {}): Float64Array {
  const { tokens, targets, batchSize, length } = batch;
  const { symbols = 2 } = options;
  const losses = new Float64Array(batchSize * length);
  for (let row = 0; row < batchSize; row++) {
    const from = row * length;
    const p = addBeta(tokens.subarray(from, from + length), options);
    for (let t = 0; t < length; t++) losses[from + t] = -Math.log(p[t * symbols + targets[from + t]]);
  }
  return losses;
}
