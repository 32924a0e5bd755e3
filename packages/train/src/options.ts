// Layer: train. What a trainer is told, checked, with its defaults; and what of it a run's record keeps.
// Knows no file and no loop.

import type { Batches } from "@diffmamba/datasets";
import type { FileSystem } from "@diffmamba/files";
import type { AdamWSettings, LossScaleSettings, ParameterGroup, Schedule } from "@diffmamba/nn";
import type { TrainEvent } from "./events.js";
import { type JsonObject, toJson } from "./json.js";
import type { LockHost } from "./lock.js";
import type { Evaluation, Sample } from "./metrics.js";
import type { TrainableModel } from "./model.js";

export interface TrainerOptions {
  readonly model: TrainableModel;
  /** What is trained, with its decay: `decayGroups(model, 0.1)`. */
  readonly groups: readonly ParameterGroup[];
  readonly adamw?: AdamWSettings;
  /** The learning rate of each step, counted from 0. */
  readonly schedule: Schedule;
  /** Steps altogether, those of earlier parts of the run included. */
  readonly steps: number;
  /** Gradients are clipped to this global norm; no limit by default. */
  readonly maxNorm?: number;
  /** `rowBatches` or `randomBatches`; their position is saved and restored. */
  readonly data: Batches;
  /** Batches of one step, whose gradients are averaged; 1 by default. */
  readonly microBatches?: number;
  /**
   * Records a whole step once its shapes are steady, and replays it: the same bits, without the work of launching. By default where
   * the backend prefers it; nowhere where it cannot.
   */
  readonly record?: boolean;
  /** For a model that computes in f16 (see `compute` of `BuildOptions`), whose loss is scaled. */
  readonly lossScale?: LossScaleSettings;

  readonly files: FileSystem;
  /** The run's folder. */
  readonly folder: string;
  /** Goes on from the last checkpoint of the folder, or starts where it has none. Without it a folder with a run is refused. */
  readonly resume?: boolean;
  /** Whatever describes the run (model, data, batch size, seed, ...); recorded, and unchanged when it goes on. */
  readonly settings?: { readonly [name: string]: unknown };
  /** Names (or paths, as in `data.path`) of settings that a continuation may change. */
  readonly freeSettings?: readonly string[];
  /** Versions of libraries, recorded; a change is a warning when the run goes on. */
  readonly versions?: { readonly [name: string]: string };

  /** Scores the weights on held-out data, every `evaluateEvery` steps and at the end. The model is in evaluation mode. */
  readonly evaluate?: (context: CallbackContext) => Promise<Evaluation>;
  readonly evaluateEvery?: number;
  /** Generates texts, every `sampleEvery` steps and at the end. The model is in evaluation mode. */
  readonly sample?: (context: CallbackContext) => Promise<Sample | readonly Sample[]>;
  readonly sampleEvery?: number;
  /** Steps between two checkpoints; one is always saved at the end, when stopped, and (with `keepBest`) of a new best. */
  readonly checkpointEvery?: number;
  /** Newest checkpoints that are kept; 2 by default. */
  readonly keepLast?: number;
  /** Saves and keeps the checkpoint of the best evaluation; true by default. */
  readonly keepBest?: boolean;
  /** Steps between two lines of metrics.jsonl; 1 by default. Steps with an evaluation always have one. */
  readonly logEvery?: number;
  /** Steps between two lines with the lambda of each layer; 10 by default. */
  readonly lambdaEvery?: number;
  /** Adds files to each checkpoint, such as the tokenizer's: `(files, folder) => saveTokenizer(files, folder, tokenizer)`. */
  readonly saveExtra?: (files: FileSystem, folder: string) => Promise<void>;
  /** Steps in a row whose gradients may be infinite (they are skipped) before the run stops; 5 by default. */
  readonly maxSkipped?: number;

  readonly onEvent?: (event: TrainEvent) => void;
  /** Who holds the folder's lock: `nodeHost()` of `@diffmamba/train/node`; a page by default. */
  readonly host?: LockHost;
  /** Milliseconds from any origin; `performance.now` by default. */
  readonly now?: () => number;
}

export interface CallbackContext {
  /** Steps done. */
  readonly step: number;
}

const defaults = {
  adamw: {},
  maxNorm: Number.POSITIVE_INFINITY,
  microBatches: 1,
  resume: false,
  settings: {},
  freeSettings: [],
  versions: {},
  keepLast: 2,
  keepBest: true,
  logEvery: 1,
  lambdaEvery: 10,
  maxSkipped: 5,
  onEvent: () => undefined,
  now: () => performance.now(),
} satisfies Partial<TrainerOptions>;

export type ResolvedOptions = TrainerOptions & Required<Pick<TrainerOptions, keyof typeof defaults>>;

const counts = ["steps", "microBatches", "keepLast", "logEvery", "lambdaEvery", "maxSkipped"] as const;
const intervals = ["evaluateEvery", "sampleEvery", "checkpointEvery"] as const;

/** Options with their defaults. @throws RangeError naming the option */
export function resolveOptions(options: TrainerOptions): ResolvedOptions {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const resolved: ResolvedOptions = { ...defaults, ...options, ...given };
  for (const name of [...counts, ...intervals]) {
    const value = resolved[name];
    const optional = (intervals as readonly string[]).includes(name);
    if (optional && value === undefined) continue;
    if (!Number.isSafeInteger(value) || (value as number) < 1) {
      throw new RangeError(`Trainer: ${name} is ${value}; it must be a whole number from 1 on.`);
    }
  }
  if (!(resolved.maxNorm > 0)) throw new RangeError(`Trainer: maxNorm is ${resolved.maxNorm}; it must be above 0.`);
  for (const [every, callback] of [
    ["evaluateEvery", "evaluate"],
    ["sampleEvery", "sample"],
  ] as const) {
    if (resolved[every] !== undefined && resolved[callback] === undefined) {
      throw new RangeError(`Trainer: ${every} is ${resolved[every]}, but there is no ${callback}.`);
    }
  }
  return resolved;
}

/** The members of {@link trainingRecord} that a continuation may change. */
export const freeTraining = [
  "steps",
  "evaluateEvery",
  "sampleEvery",
  "checkpointEvery",
  "keepLast",
  "keepBest",
  "logEvery",
  "lambdaEvery",
  "maxSkipped",
] as const;

/** What a run's record keeps of the trainer's own options. The schedule is checked by its values, not recorded. */
export function trainingRecord(options: ResolvedOptions): JsonObject {
  const own = Object.fromEntries(freeTraining.map((name) => [name, options[name]]));
  const groups = options.groups.map(({ parameters, weightDecay, lrScale = 1 }) => ({
    numbers: parameters.reduce((sum, { size }) => sum + size, 0),
    weightDecay,
    lrScale,
  }));
  const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 } = options.adamw;
  const { microBatches, maxNorm, lossScale } = options;
  const types = options.groups.flatMap(({ parameters }) => parameters.map(({ compute }) => compute.dtype));
  const half = types.find((type) => type === "bf16" || type === "f16");
  return toJson({
    ...own,
    ...{ microBatches, maxNorm, adamw: { beta1, beta2, eps }, groups },
    ...(half !== undefined && { compute: half }),
    ...(half === "f16" && lossScale !== undefined && { lossScale }),
  }) as JsonObject;
}
