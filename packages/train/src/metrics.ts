// Layer: train. The lines of metrics.jsonl and samples.jsonl: what a run tells of its steps, to be read by anything.
// Knows their form. Knows no model and no loop.

import { type FileSystem, joinPath } from "@diffmamba/files";
import type { Json } from "./json.js";
import { readJsonLines } from "./jsonLines.js";
import { metricsFile, samplesFile } from "./runFolder.js";

/** What an evaluation found; any further members are kept as they are. */
export interface Evaluation {
  /** Nats a token. The best checkpoint is the one where it is smallest. */
  readonly loss: number;
  /** Tokens that were scored. */
  readonly tokens: number;
  /** Bits per byte. */
  readonly bpb?: number;
  readonly [key: string]: Json | undefined;
}

/** One generated text; any further members are kept as they are. */
export interface Sample {
  readonly text: string;
  readonly prompt?: string;
  readonly [key: string]: Json | undefined;
}

export interface LambdaValue {
  /** The mixer, counted from 0. */
  readonly layer: number;
  readonly value: number;
}

/** One line of metrics.jsonl. All but {@link wallClockKeys} is the same, bit for bit, each time a run is repeated. */
export interface MetricsLine {
  /** Steps done, from 1. */
  readonly step: number;
  /** Nats a token, the mean over the step's micro-batches, before the step; null where it was not finite. */
  readonly loss: number | null;
  readonly lr: number;
  /** Global norm of the gradients before clipping; null where it was not finite and the step was skipped. */
  readonly norm: number | null;
  /** Targets seen since the run began. */
  readonly tokens: number;
  /** Tokens a second since the line before, without evaluations and saves. */
  readonly tokensPerSecond: number;
  /** Seconds since the run began, all its parts together. */
  readonly time: number;
  /** The lambda of each differential layer after the step, at intervals. */
  readonly lambda?: readonly LambdaValue[];
  /** Of the weights after the step, at intervals. */
  readonly eval?: Evaluation;
}

/** The members of a line that depend on the machine and the day. */
export const wallClockKeys = ["tokensPerSecond", "time"] as const;

/** A line without {@link wallClockKeys}. */
export function reproducible(line: MetricsLine): Omit<MetricsLine, (typeof wallClockKeys)[number]> {
  const { tokensPerSecond, time, ...rest } = line;
  return rest as Omit<MetricsLine, (typeof wallClockKeys)[number]>;
}

/** One line of samples.jsonl. */
export type SampleLine = Sample & { readonly step: number };

/** The lines of a run's metrics, also while it runs; none where there are none yet. */
export function readMetrics(files: FileSystem, run: string): AsyncGenerator<MetricsLine> {
  return readJsonLines<MetricsLine>(files, joinPath(run, metricsFile));
}

/** The lines of a run's samples. */
export function readSamples(files: FileSystem, run: string): AsyncGenerator<SampleLine> {
  return readJsonLines<SampleLine>(files, joinPath(run, samplesFile));
}
