// Layer: apps/cli, report. What a report shows of a run, whatever wrote it down. Knows no file, no chart and no page.

/** A number at a step. */
export interface Point {
  readonly step: number;
  readonly value: number;
}

/** Lambda of one differential layer over time. */
export interface LambdaCurve {
  /** Index of the block, from 0. */
  readonly layer: number;
  readonly points: readonly Point[];
}

export interface Sample {
  readonly step: number;
  readonly prompt: string;
  readonly text: string;
}

export interface RunData {
  /** Unique among the runs of a report. */
  readonly name: string;
  /** Every setting by its dotted name. */
  readonly settings: ReadonlyMap<string, string>;
  /** Absent where it was not recorded. */
  readonly parameters: number | undefined;
  readonly backend: string;
  /** "characters" or "bytes" where a token is one of them; then losses are shown in bits. */
  readonly symbols: "character" | "byte" | "token";
  /** Nats a token. */
  readonly train: readonly Point[];
  readonly heldOut: readonly Point[];
  readonly lambdas: readonly LambdaCurve[];
  readonly samples: readonly Sample[];
  /** Tokens trained on a second, over the whole run; absent where it was not recorded. */
  readonly tokensPerSecond?: number;
  /** Seconds of training; absent where they were not recorded. */
  readonly seconds?: number;
}

/** What losses are shown in: bits where all runs have tokens of the same plain kind, nats a token otherwise. */
export interface LossUnit {
  readonly name: string;
  readonly factor: number;
}

export function lossUnit(runs: readonly RunData[]): LossUnit {
  const [first] = runs;
  const plain =
    first !== undefined && first.symbols !== "token" && runs.every(({ symbols }) => symbols === first.symbols);
  return plain ? { name: `bits per ${first.symbols}`, factor: 1 / Math.LN2 } : { name: "nats per token", factor: 1 };
}

/** At most `count` points: each the mean of the points between it and the next one, at their last step. */
export function thinOut(points: readonly Point[], count: number): readonly Point[] {
  if (points.length <= count) return points;
  return Array.from({ length: count }, (_, i) => {
    const part = points.slice(Math.floor((i * points.length) / count), Math.floor(((i + 1) * points.length) / count));
    const value = part.reduce((sum, point) => sum + point.value, 0) / part.length;
    return { step: part[part.length - 1].step, value };
  });
}
