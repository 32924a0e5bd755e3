// Learning-rate schedules: pure functions of the step, each with a linear warm-up.
// Knows numbers and nothing else.

/** The learning rate of step `step`, counted from 0. */
export type Schedule = (step: number) => number;

export interface WarmupOptions {
  /** Steps over which the rate rises linearly from 0; step `warmup` is the first at the peak. 0 by default. */
  readonly warmup?: number;
}

export interface DecayOptions extends WarmupOptions {
  /** Steps altogether, warm-up included; from there on the rate stays at its floor. */
  readonly steps: number;
  /** What the rate ends at; 0 by default. */
  readonly floor?: number;
}

function withWarmup(peak: number, warmup: number, after: Schedule): Schedule {
  return (step) => (step < warmup ? (peak * step) / warmup : after(step));
}

/** How much of the way from the end of the warm-up to the last step is done, from 0 to 1. */
function progress(step: number, warmup: number, steps: number): number {
  return Math.min(1, Math.max(0, (step - warmup) / Math.max(1, steps - warmup)));
}

/** The peak, always. */
export function constant(peak: number, { warmup = 0 }: WarmupOptions = {}): Schedule {
  return withWarmup(peak, warmup, () => peak);
}

/** A straight line from the peak to the floor. */
export function linear(peak: number, { warmup = 0, steps, floor = 0 }: DecayOptions): Schedule {
  return withWarmup(peak, warmup, (step) => floor + (peak - floor) * (1 - progress(step, warmup, steps)));
}

/** Half a cosine from the peak to the floor (Loshchilov and Hutter 2017). */
export function cosine(peak: number, { warmup = 0, steps, floor = 0 }: DecayOptions): Schedule {
  return withWarmup(peak, warmup, (step) => {
    return floor + (peak - floor) * 0.5 * (1 + Math.cos(Math.PI * progress(step, warmup, steps)));
  });
}

/** Warm-up, stable, decay: the peak until the last `decay` steps, then a straight line to the floor (Hu et al. 2024). */
export function wsd(peak: number, options: DecayOptions & { readonly decay: number }): Schedule {
  const { warmup = 0, steps, floor = 0, decay } = options;
  const start = Math.max(warmup, steps - decay);
  return withWarmup(peak, warmup, (step) => floor + (peak - floor) * (1 - progress(step, start, steps)));
}
