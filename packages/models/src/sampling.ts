// Sampling: one token from one row of logits, on the host. The rules are those of Hugging Face's `generate`, in its
// order: repetition penalty, temperature, top-k, top-p, min-p.
// Knows numbers and random streams. Knows no model, no tensor and no text.

import { RandomStream } from "@diffmamba/random";
import { ValueError } from "@diffmamba/tensor";

export interface SamplingOptions {
  /** Logits are divided by it; 0 takes the most probable token. 1 by default. */
  readonly temperature?: number;
  /** Only this many most probable tokens are drawn from; all by default. */
  readonly topK?: number;
  /** Only the fewest most probable tokens whose probabilities reach this sum (Holtzman et al. 2020); 1, all, by default. */
  readonly topP?: number;
  /** Only tokens of at least this fraction of the greatest probability (Nguyen et al. 2024); 0, all, by default. */
  readonly minP?: number;
  /** Logits of tokens that the row holds already are divided by it where positive, else multiplied (Keskar et al. 2019); 1 by default. */
  readonly repetitionPenalty?: number;
}

const rules: Readonly<Record<keyof SamplingOptions, readonly [valid: (value: number) => boolean, wanted: string]>> = {
  temperature: [(n) => n >= 0 && Number.isFinite(n), "0, for the most probable token, or a positive number"],
  topK: [(n) => Number.isInteger(n) && n >= 1, "a whole number of at least 1"],
  topP: [(n) => n > 0 && n <= 1, "above 0 and at most 1"],
  minP: [(n) => n >= 0 && n <= 1, "from 0 to 1"],
  repetitionPenalty: [(n) => n > 0 && Number.isFinite(n), "a positive number; 1 is no penalty"],
};

/** @throws ValueError naming the option */
export function checkSampling(options: SamplingOptions): void {
  for (const [name, [valid, wanted]] of Object.entries(rules)) {
    const value = options[name as keyof SamplingOptions];
    if (value !== undefined && !valid(value)) {
      throw new ValueError(`generate: ${name} is ${value}; it must be ${wanted}.`);
    }
  }
}

/** What is drawn. */
export interface Draw {
  readonly token: number;
  /** ln of the token's probability by the model itself, before any of the rules. */
  readonly logprob: number;
}

/** The stream of random numbers that tokens are drawn by, here and on the device. */
export const samplerStream = "generate";

/** Draws the tokens of one row: which number is drawn depends on the seed and the token's place in the row alone. */
export class Sampler {
  readonly #stream: RandomStream;
  readonly #word = new Uint32Array(2);

  /** @throws ValueError, or RangeError for the seed */
  constructor(
    readonly options: SamplingOptions,
    seed: number,
  ) {
    checkSampling(options);
    this.#stream = new RandomStream(seed, samplerStream);
  }

  /**
   * @param logits (V,)
   * @param seen the tokens that the row holds
   * @param position the new token's place in the row, from 0
   * @throws ValueError where the logits are not numbers
   */
  draw(logits: ArrayLike<number>, seen: Iterable<number>, position: number): Draw {
    const { temperature = 1, repetitionPenalty = 1 } = this.options;
    const scores = Float64Array.from(logits);
    const normalizer = logSumExp(scores, position);
    penalizeRepetition(scores, seen, repetitionPenalty);
    const token = temperature === 0 ? argmax(scores) : this.#sample(scores, temperature, position);
    return { token, logprob: logits[token] - normalizer };
  }

  #sample(scores: Float64Array, temperature: number, position: number): number {
    const { topK, topP = 1, minP = 0 } = this.options;
    for (let i = 0; i < scores.length; i++) scores[i] /= temperature;
    if (topK !== undefined) keepTopK(scores, topK);
    if (topP < 1) keepTopP(scores, topP);
    if (minP > 0) keepMinP(scores, minP);
    const [high, low] = this.#stream.words(this.#word, position);
    // 53 bits: a number of [0, 1)
    return pick(softmax(scores), ((high >>> 5) * 2 ** 26 + (low >>> 6)) * 2 ** -53);
  }
}

/** @throws ValueError where there is a NaN or an Infinity, or nothing but -Infinity */
function logSumExp(scores: Float64Array, position: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (const [i, score] of scores.entries()) {
    if (Number.isNaN(score) || score === Number.POSITIVE_INFINITY) {
      throw new ValueError(
        `generate: the logit of token ${i} at position ${position} is ${score}. Are the weights sound?`,
      );
    }
    if (score > top) top = score;
  }
  if (top === Number.NEGATIVE_INFINITY)
    throw new ValueError(`generate: every logit at position ${position} is -Infinity.`);
  let sum = 0;
  for (const score of scores) sum += Math.exp(score - top);
  return top + Math.log(sum);
}

/** Index of the first greatest number. */
export function argmax(scores: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}

/** Probabilities of logits; 0 where a logit is -Infinity. */
export function softmax(scores: Float64Array): Float64Array {
  const top = scores[argmax(scores)];
  const out = scores.map((score) => Math.exp(score - top));
  let sum = 0;
  for (const value of out) sum += value;
  for (let i = 0; i < out.length; i++) out[i] /= sum;
  return out;
}

/** In place: positive logits of the tokens are divided by `penalty`, others multiplied. */
export function penalizeRepetition(scores: Float64Array, tokens: Iterable<number>, penalty: number): void {
  if (penalty === 1) return;
  for (const token of new Set(tokens)) {
    scores[token] = scores[token] > 0 ? scores[token] / penalty : scores[token] * penalty;
  }
}

/** In place: -Infinity below the k-th greatest logit. Logits equal to it stay, so that more than k may. */
export function keepTopK(scores: Float64Array, k: number): void {
  if (k >= scores.length) return;
  const least = scores.toSorted()[scores.length - k];
  for (let i = 0; i < scores.length; i++) if (scores[i] < least) scores[i] = Number.NEGATIVE_INFINITY;
}

/**
 * In place: -Infinity for the least probable tokens, as many as have a probability of 1 - p at most together. The most
 * probable one stays. Of equal ones those with the lower numbers go first.
 */
export function keepTopP(scores: Float64Array, p: number): void {
  const rising = scores.filter((score) => score > Number.NEGATIVE_INFINITY).sort();
  const probabilities = softmax(rising);
  let removed = 0;
  let sum = 0;
  while (removed < rising.length - 1) {
    sum += probabilities[removed];
    if (sum > 1 - p) break;
    removed++;
  }
  const least = rising[removed];
  let equal = removed - rising.indexOf(least);
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] < least || (scores[i] === least && equal-- > 0)) scores[i] = Number.NEGATIVE_INFINITY;
  }
}

/** In place: -Infinity where the probability is below `fraction` of the greatest. */
export function keepMinP(scores: Float64Array, fraction: number): void {
  const least = scores[argmax(scores)] + Math.log(fraction);
  for (let i = 0; i < scores.length; i++) if (scores[i] < least) scores[i] = Number.NEGATIVE_INFINITY;
}

/** The token at `u`, of [0, 1), when the probabilities lie side by side in the order of the tokens. */
export function pick(probabilities: Float64Array, u: number): number {
  let last = 0;
  let sum = 0;
  for (const [i, probability] of probabilities.entries()) {
    if (probability === 0) continue;
    sum += probability;
    last = i;
    if (u < sum) return i;
  }
  return last;
}
