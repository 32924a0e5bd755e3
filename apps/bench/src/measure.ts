// Layer: apps/bench. The clock: runs several entries in turns, so that noise hits all of them, and gives medians.
// Knows functions that take time. Knows no tensor, no unit and no suite.

/** Something that takes time. */
export interface Timed {
  /** One run, or the order for one: what it makes it also frees. A promise is awaited. */
  run(): unknown;
  /** Waits until all that was ordered has been done; called once a sample. */
  finish?(): Promise<unknown>;
  /** It takes one sample without a warm-up: for what is far slower than the rest. */
  readonly once?: boolean;
  /** Milliseconds for which its threads go on spinning when it has run: nothing else is timed before they are over. */
  readonly restMs?: number;
  /** What was timed elsewhere, as by a program of its own: it is taken as it is, and nothing is run. */
  readonly measured?: Timing;
}

/** Seconds of one run. */
export interface Timing {
  readonly median: number;
  readonly min: number;
  /** Distance of the quartiles divided by the median. */
  readonly spread: number;
  readonly samples: number;
}

export interface MeasureOptions {
  /** Seconds for all entries together, warm-up included; a slow entry may exceed it by `minSamples` runs and one. */
  readonly budget: number;
  /** Samples of each entry, at least. 3 by default. */
  readonly minSamples?: number;
  /** 200 by default. */
  readonly maxSamples?: number;
  /** Seconds that a sample lasts at least: quick entries run many times in one. 0.002 by default. */
  readonly minSampleSeconds?: number;
  /** Seconds since any moment; the machine's clock by default. */
  readonly now?: () => number;
}

const machineClock = () => performance.now() / 1e3;

async function sample(entry: Timed, runs: number, now: () => number): Promise<number> {
  const start = now();
  for (let i = 0; i < runs; i++) {
    const pending = entry.run();
    if (pending instanceof Promise) await pending;
  }
  await entry.finish?.();
  return now() - start;
}

/** Waits until the threads of an entry are at rest. */
async function rest({ restMs }: Timed): Promise<void> {
  if (restMs !== undefined) await new Promise((resolve) => setTimeout(resolve, restMs));
}

/** Runs an entry until its code is compiled and its memory is there. @returns how many runs make one sample */
async function warmUp(entry: Timed, seconds: number, minSample: number, now: () => number): Promise<number> {
  let runs = 1;
  // The first run pays for compilation and memory: it says nothing about the next, and its time is none of the warm-up's.
  await sample(entry, 1, now);
  const end = now() + seconds;
  while (now() < end) {
    const took = await sample(entry, runs, now);
    if (took < minSample) runs = Math.min(runs * 2, 1 << 24);
  }
  return runs;
}

/** The value below which the share `q` of `sorted` lies, between neighbours in proportion. */
function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const [low, high] = [Math.floor(at), Math.ceil(at)];
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

function summary(samples: readonly number[]): Timing {
  const sorted = samples.toSorted((a, b) => a - b);
  const median = quantile(sorted, 0.5);
  const quartiles = quantile(sorted, 0.75) - quantile(sorted, 0.25);
  return { median, min: sorted[0], spread: median > 0 ? quartiles / median : 0, samples: sorted.length };
}

/**
 * Times all entries in one go: after a warm-up of each, round after round takes one sample of every entry, beginning
 * with another one each time, until the budget is spent.
 * @throws RangeError for a budget that is no time
 */
export async function measure<T extends Timed>(all: readonly T[], options: MeasureOptions): Promise<Map<T, Timing>> {
  const entries = all.filter(({ measured }) => measured === undefined);
  const { budget, minSamples = 3, maxSamples = 200, minSampleSeconds = 2e-3, now = machineClock } = options;
  if (!(budget > 0)) throw new RangeError(`measure: a budget of ${budget} seconds is no time; it must be above 0.`);
  const start = now();
  const warmSeconds = (0.3 * budget) / Math.max(entries.length, 1);
  const runs: number[] = [];
  for (const entry of entries) {
    runs.push(entry.once ? 1 : await warmUp(entry, warmSeconds, minSampleSeconds, now));
    await rest(entry);
  }
  const samples: number[][] = entries.map(() => []);
  for (let round = 0; round < maxSamples && (round < minSamples || now() - start < budget); round++) {
    for (let turn = 0; turn < entries.length; turn++) {
      const i = (round + turn) % entries.length;
      if (entries[i].once) continue;
      samples[i].push((await sample(entries[i], runs[i], now)) / runs[i]);
      if (entries.length > 1) await rest(entries[i]);
    }
  }
  // Last, because they would take the others' time, and leave much to clean up behind.
  for (const [i, entry] of entries.entries()) if (entry.once) samples[i].push(await sample(entry, 1, now));
  const timed = new Map(entries.map((entry, i) => [entry, summary(samples[i])]));
  for (const entry of all) if (entry.measured !== undefined) timed.set(entry, entry.measured);
  return timed;
}
