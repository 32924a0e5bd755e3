// Layer: eval. How sure a number over documents is: standard errors, and intervals by the bootstrap (Efron 1979).
// Knows numbers. Knows no task and no model.
import { RandomStream } from "@diffmamba/random";

export const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length;

/** Standard error of a mean: the sample's deviation (n - 1) over the root of n; NaN for fewer than two values. */
export function meanError(values: readonly number[]): number {
  if (values.length < 2) return Number.NaN;
  const center = mean(values);
  const variance = values.reduce((sum, x) => sum + (x - center) ** 2, 0) / (values.length - 1);
  return Math.sqrt(variance / values.length);
}

export interface Bootstrap {
  /** The deviation of the resampled numbers: an estimate of the standard error. */
  readonly stderr: number;
  /** Between these lie 95 of 100 of them. */
  readonly interval: readonly [low: number, high: number];
}

/** The value at a share of sorted numbers, between its neighbours. */
function quantile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/**
 * Draws as many values with replacement, `iterations` times, and looks at how the number varies that is made of them.
 * The same seed gives the same draws.
 */
export function bootstrap<T>(
  values: readonly T[],
  aggregate: (values: readonly T[]) => number,
  { iterations, seed }: { readonly iterations: number; readonly seed: number },
): Bootstrap {
  if (values.length < 2 || iterations < 2) return { stderr: Number.NaN, interval: [Number.NaN, Number.NaN] };
  const stream = new RandomStream(seed, "bootstrap");
  const words = new Uint32Array(values.length);
  const found: number[] = [];
  for (let iteration = 0; iteration < iterations; iteration++) {
    stream.words(words, iteration);
    found.push(aggregate(Array.from(words, (word) => values[Math.floor((word / 2 ** 32) * values.length)])));
  }
  const center = mean(found);
  const variance = found.reduce((sum, x) => sum + (x - center) ** 2, 0) / (found.length - 1);
  const sorted = found.sort((a, b) => a - b);
  return { stderr: Math.sqrt(variance), interval: [quantile(sorted, 0.025), quantile(sorted, 0.975)] };
}
