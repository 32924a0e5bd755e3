// Layer: reference backend. One token a row of logits, drawn by a counter-based random number, as plain loops.
// Knows views and Philox; knows no Tensor and no model.

import { philox4x32 } from "@diffmamba/random";
import type { RoutineKernels, SampleOptions } from "../routineKernels.js";
import { ints, Rows, storeDoubles } from "./views.js";

/** ln of the sum of e^x; NaN where the logits are none that a token can be drawn by. */
function logSumExp(x: Float64Array): number {
  let top = Number.NEGATIVE_INFINITY;
  for (const value of x) {
    if (Number.isNaN(value) || value === Number.POSITIVE_INFINITY) return Number.NaN;
    top = Math.max(top, value);
  }
  let sum = 0;
  for (const value of x) sum += Math.exp(value - top);
  return top === Number.NEGATIVE_INFINITY ? Number.NaN : top + Math.log(sum);
}

/** The least logit that stays by top-k, top-p and min-p, in this order. z is scaled by the temperature; `sorted` the same, falling. */
function threshold(sorted: Float64Array, { topK, topP, minP }: SampleOptions): number {
  const [top] = sorted;
  let least = topK > 0 && topK < sorted.length ? sorted[topK - 1] : Number.NEGATIVE_INFINITY;
  if (topP < 1) {
    const kept = sorted.filter((value) => value >= least);
    const weights = kept.map((value) => Math.exp(value - top));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let sum = 0;
    for (const [i, weight] of weights.entries()) {
      sum += weight;
      least = kept[i];
      if (sum >= topP * total) break;
    }
  }
  return minP > 0 ? Math.max(least, top + Math.log(minP)) : least;
}

/** The first token at which the running sum of e^(z - max) over those that stay exceeds u times all of it. */
function pick(z: Float64Array, least: number, top: number, u: number): number {
  let total = 0;
  for (const value of z) if (value >= least) total += Math.exp(value - top);
  let last = 0;
  let sum = 0;
  for (const [i, value] of z.entries()) {
    if (!(value >= least) || value === Number.NEGATIVE_INFINITY) continue;
    sum += Math.exp(value - top);
    last = i;
    if (sum > u * total) return i;
  }
  return last;
}

/**
 * logits (R, V) rows, keys (R, 2) and positions (R,) i32 -> tokens (R,) i32, and ln of each one's probability by the logits as they
 * are, logprobs (R,). u = (word >>> 8) 2^-24, the word being the first of the Philox block with counter (0, 0, position, 0).
 */
export const sample: RoutineKernels["sample"] = (inputs, outputs, options) => {
  const logits = new Rows("sample: logits", inputs.logits, 1);
  const keys = ints("sample: keys", inputs.keys);
  const positions = ints("sample: positions", inputs.positions);
  const tokens = ints("sample: tokens", outputs.tokens);
  const logprobs = new Float64Array(logits.count);
  const row = new Float64Array(logits.width);
  const words = new Uint32Array(4);
  for (let r = 0; r < logits.count; r++) {
    logits.load(r, row);
    const total = logSumExp(row);
    if (Number.isNaN(total)) {
      [tokens[r], logprobs[r]] = [-1, Number.NaN];
      continue;
    }
    const top = row.reduce((a, b) => Math.max(a, b));
    if (options.temperature === 0) tokens[r] = row.indexOf(top);
    else {
      philox4x32([0, 0, positions[r] >>> 0, 0], [keys[2 * r] >>> 0, keys[2 * r + 1] >>> 0], words);
      const z = row.map((value) => value / options.temperature);
      const least = threshold(z.toSorted().reverse(), options);
      tokens[r] = pick(z, least, top / options.temperature, (words[0] >>> 8) * 2 ** -24);
    }
    logprobs[r] = row[tokens[r]] - total;
  }
  storeDoubles("sample: logprobs", outputs.logprobs, logprobs);
};
