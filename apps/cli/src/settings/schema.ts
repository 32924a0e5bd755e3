// Layer: apps/cli, settings. What can be set, with its default and what it must be. Knows the model's own fields by their list.
// Knows no file, no flag and no preset.
import { configFields, lambdaModes, type ModelConfig } from "@diffmamba/models";
import { z } from "zod";

/** A whole number of at least `min`. */
const whole = (min: number, initial: number) => {
  const wanted = `must be a whole number of at least ${min}`;
  return z.int(wanted).min(min, wanted).default(initial);
};

/** A number from `min`, and below `below`. */
const number = (min: number, initial: number, below = Number.POSITIVE_INFINITY) => {
  const wanted = `must be a number of at least ${min}${Number.isFinite(below) ? ` and below ${below}` : ""}`;
  return z.number(wanted).min(min, wanted).lt(below, wanted).default(initial);
};

const choice = <const T extends readonly [string, ...string[]]>(values: T, initial: T[number]) =>
  z.enum(values, `must be one of ${values.join(", ")}`).default(initial as never);

const text = (initial: string) => z.string("must be a text").default(initial);

export const decayRules = ["mamba", "backbone", "trainer", "all", "none"] as const;
export const precisions = ["f32", "bf16", "f16"] as const;
export const scheduleNames = ["constant", "linear", "cosine", "wsd"] as const;

/** Where the text comes from and how it is cut. */
const data = {
  /** "bytes", "characters" (those of the text), "text8", or a folder or file with a tokenizer. */
  tokenizer: text("bytes"),
  /** Shares of the file that are held out; the end of it is the test split, the part before it the valid split. */
  valid: number(0, 0.1, 1),
  test: number(0, 0, 1),
  /**
   * "random": windows from anywhere; "rows": the paper's iterator (arXiv 2507.06204, its code); "packed": windows side by side, each once an
   * epoch, the state starting anew where a store's documents meet.
   */
  order: choice(["random", "rows", "packed"], "random"),
  /** Further token stores, and their shares beside that of --data, which is 1: "stores/books:0.5,stores/code:2". For "packed". */
  mix: text(""),
};

const train = {
  steps: whole(1, 1000),
  /** Sequences of a step; with `accumulate`, of each of its parts. */
  batchSize: whole(1, 8),
  /** Tokens of a sequence. */
  length: whole(1, 256),
  /** Parts of a step whose gradients are added up. */
  accumulate: whole(1, 1),
  /**
   * What weights and activations are computed in. With bf16 and f16 the masters, the optimizer, recurrences, decays, norms' statistics
   * and the loss stay f32; with f16 the loss is scaled.
   */
  precision: choice(precisions, "f32"),
  /** Keep the inputs of each layer alone, and compute the rest again for its gradient: less memory, more time, the same bits. */
  checkpointActivations: z.boolean("must be true or false").default(false),
  lr: number(0, 1e-3),
  schedule: choice(scheduleNames, "cosine"),
  /** Steps of the linear warm-up. */
  warmup: whole(0, 0),
  /** Length of the schedule in steps; 0 for `steps`. The paper's schedule is much longer than its runs. */
  scheduleSteps: whole(0, 0),
  /** What the rate ends at, as a share of `lr`. */
  lrFloor: number(0, 0.1, 1.000001),
  /** Steps of the decay at the end of "wsd". */
  lrDecaySteps: whole(0, 0),
  weightDecay: number(0, 0.1),
  decayRule: choice(decayRules, "mamba"),
  /** Decay the tables of embeddings too, as the paper's runs do. */
  decayEmbeddings: z.boolean("must be true or false").default(true),
  beta1: number(0, 0.9, 1),
  beta2: number(0, 0.95, 1),
  eps: number(0, 1e-8),
  /** Largest global norm of the gradients; 0 for no limit. */
  clip: number(0, 1),
  /** Steps between evaluations on the held-out text; 0 for none but at the start and the end. */
  evalEvery: whole(0, 100),
  /** Tokens of the held-out text that are scored then; 0 for all. */
  evalTokens: whole(0, 0),
  /** Steps between checkpoints; 0 for none but the last. */
  saveEvery: whole(0, 100),
  /** How many checkpoints stay beside the best. */
  keep: whole(1, 2),
  /** Steps between the lambdas that are noted. */
  lambdaEvery: whole(1, 10),
  /** Steps between samples; 0 for none but the last. */
  sampleEvery: whole(0, 0),
  /** Tokens of a sample; 0 for none at all. */
  sampleTokens: whole(0, 200),
  /** What samples begin with; the beginning of the held-out text where it is empty. */
  samplePrompt: text(""),
  sampleTemperature: number(0, 0.8),
};

/** The model's fields; `modelConfig` of @diffmamba/models checks their values. */
const model = Object.fromEntries(configFields.map((field) => [field, z.unknown().optional()]));

export const settingsSchema = z.strictObject({
  seed: z.int("must be a whole number of at least 0").min(0, "must be a whole number of at least 0").default(0),
  backend: z.string("must be the name of a backend").optional(),
  model: z.strictObject(model).prefault({}),
  data: z.strictObject(data).prefault({}),
  train: z.strictObject(train).prefault({}),
});

type Parsed = z.infer<typeof settingsSchema>;

/** Everything that a run was told, whole. What the model leaves open has the defaults of @diffmamba/models. */
export type Settings = Omit<Parsed, "model"> & { readonly model: Partial<ModelConfig> };

const groups = { model, data, train } as const;

/** Every setting by its dotted name, in order. */
export const settingNames: readonly string[] = [
  "seed",
  "backend",
  ...Object.entries(groups).flatMap(([group, fields]) => Object.keys(fields).map((field) => `${group}.${field}`)),
];

/** The full names that a short one stands for: `dModel` for `model.dModel`. */
export const shortNames: ReadonlyMap<string, readonly string[]> = (() => {
  const found = new Map<string, string[]>();
  for (const name of settingNames) {
    const short = name.slice(name.indexOf(".") + 1);
    found.set(short, [...(found.get(short) ?? []), name]);
  }
  return found;
})();

export const lambdaNames = lambdaModes;
