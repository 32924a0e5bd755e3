// The configuration of a language model: plain JSON, every field with its default, checked by name.
// The pre-norm model of the published checkpoints and the post-norm one of the paper's small models are values of it.
// Knows names and numbers. Knows no tensor and no file.

import { type DepthPattern, type LambdaMode, lambdaModes } from "@diffmamba/differential";

/** What stands in a layer that is differential under the pattern; the other layers are "mamba" or "mamba2". */
export type Variant = "mamba" | "mamba2" | "diffmamba" | "diffmamba2" | "diffs6" | "diffs6mamba2" | "diffmamba2e";

export const variants: readonly Variant[] = [
  "mamba",
  "mamba2",
  "diffmamba",
  "diffmamba2",
  "diffs6",
  "diffs6mamba2",
  "diffmamba2e",
];

/** The vanilla mixer that a variant is built from. */
export function baseOf(variant: Variant): "mamba" | "mamba2" {
  return variant === "mamba" || variant === "diffmamba" || variant === "diffs6" ? "mamba" : "mamba2";
}

export interface ModelConfig {
  readonly vocabSize: number;
  readonly dModel: number;
  /** Blocks; with a feed-forward each block is mixersPerBlock mixers and one feed-forward. */
  readonly nLayers: number;
  readonly variant: Variant;
  /** Which mixers, counted from 0, are differential. */
  readonly pattern: DepthPattern;
  readonly lambda: LambdaMode;
  /** The norm after the subtraction. */
  readonly subln: boolean;
  /**
   * What lambda_init counts: "mixer", mixers from 0 (the 370M models), or "sublayer", all residual sublayers from 0,
   * feed-forwards included (the paper's small models).
   */
  readonly lambdaIndex: "mixer" | "sublayer";

  /** N */
  readonly dState: number;
  /** Taps of the convolution. */
  readonly dConv: number;
  /** Of a vanilla mixer; the two branches of "diffmamba" and "diffmamba2" have half each. */
  readonly expand: number;
  /** P of a vanilla Mamba-2 mixer; the branches of "diffmamba2" have half. */
  readonly headDim: number;
  readonly nGroups: number;
  /** Mamba-1; 0 stands for ceil(dModel / 16). */
  readonly dtRank: number;
  readonly dtMin: number;
  readonly dtMax: number;
  readonly dtInitFloor: number;
  /** Clamp on dt; null stands for no upper limit. */
  readonly dtLimit: readonly [number, number | null];
  /** A_log of Mamba-2 at the start: log U(1, 16) per head, or log(1 .. H). */
  readonly aInit: "uniform" | "range";
  readonly dHasHeadDim: boolean;
  readonly rmsNorm: boolean;
  readonly normBeforeGate: boolean;
  readonly convBias: boolean;
  /** Biases of the mixers' projections. */
  readonly bias: boolean;
  readonly learnableInitialState: boolean;
  /** Tokens a chunk of the scan. */
  readonly chunkSize: number;

  /** "pre": x + f(norm(x)), with a norm at the end; "post": norm(x + dropout(f(x))). */
  readonly residual: "pre" | "post";
  readonly norm: "rms" | "layer";
  readonly normEps: number;
  readonly mixersPerBlock: number;
  /** Hidden size of the feed-forward in units of dModel; 0 for none. */
  readonly feedForward: number;
  /** After each sublayer and inside the feed-forward. */
  readonly dropout: number;
  readonly embeddingDropout: number;
  /** On the projected path of an adaptive softmax. */
  readonly headDropout: number;

  /** One table for the embedding and the head. */
  readonly tieEmbeddings: boolean;
  /** Standard deviation of the embedding at the start. */
  readonly initializerRange: number;
  /** Embeddings are multiplied by this. */
  readonly embeddingScale: number;
  /** Divide the first values of output projections by sqrt(number of residual sublayers). */
  readonly rescaleResidual: boolean;
  /**
   * Adaptive embedding and softmax (Baevski and Auli 2019) instead of plain tables: the tokens where a new cluster
   * begins, and by what its width is divided. null for plain ones.
   */
  readonly adaptive: { readonly cutoffs: readonly number[]; readonly divValue: number } | null;
}

/** What is not given. Sizes of a small model; the rest as the published checkpoints have it. */
export const defaultConfig: ModelConfig = {
  vocabSize: 256,
  dModel: 128,
  nLayers: 4,
  variant: "diffmamba2",
  pattern: "all",
  lambda: "vecsum",
  subln: true,
  lambdaIndex: "mixer",
  dState: 64,
  dConv: 4,
  expand: 2,
  headDim: 64,
  nGroups: 1,
  dtRank: 0,
  dtMin: 0.001,
  dtMax: 0.1,
  dtInitFloor: 1e-4,
  dtLimit: [0, null],
  aInit: "uniform",
  dHasHeadDim: false,
  rmsNorm: true,
  normBeforeGate: false,
  convBias: true,
  bias: false,
  learnableInitialState: false,
  chunkSize: 64,
  residual: "pre",
  norm: "rms",
  normEps: 1e-5,
  mixersPerBlock: 1,
  feedForward: 0,
  dropout: 0,
  embeddingDropout: 0,
  headDropout: 0,
  tieEmbeddings: true,
  initializerRange: 0.02,
  embeddingScale: 1,
  rescaleResidual: true,
  adaptive: null,
};

/** A configuration that no model can have. The message names the field. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

const choices: Readonly<Partial<Record<keyof ModelConfig, readonly string[]>>> = {
  variant: variants,
  lambda: lambdaModes,
  lambdaIndex: ["mixer", "sublayer"],
  aInit: ["uniform", "range"],
  residual: ["pre", "post"],
  norm: ["rms", "layer"],
};

const wholeNumbers: readonly (keyof ModelConfig)[] = [
  "vocabSize",
  "dModel",
  "nLayers",
  "dState",
  "dConv",
  "expand",
  "headDim",
  "nGroups",
  "chunkSize",
  "mixersPerBlock",
];

function fail(field: string, value: unknown, wanted: string): never {
  throw new ConfigError(`${field}: ${JSON.stringify(value)}; it must be ${wanted}.`);
}

function checkPattern(value: unknown): void {
  if (typeof value === "string" && ["all", "alternate", "quarter", "none"].includes(value)) return;
  if (Array.isArray(value) && value.every((i) => Number.isInteger(i) && i >= 0)) return;
  fail("pattern", value, '"all", "alternate", "quarter", "none" or a list of layers, counted from 0');
}

function checkField(field: keyof ModelConfig, value: unknown): void {
  const allowed = choices[field];
  if (allowed !== undefined) {
    if (!allowed.includes(value as string)) fail(field, value, `one of ${allowed.join(", ")}`);
  } else if (wholeNumbers.includes(field)) {
    if (!Number.isInteger(value) || (value as number) < 1) fail(field, value, "a whole number of at least 1");
  } else if (field === "pattern") {
    checkPattern(value);
  } else if (field === "dtLimit") {
    const [low, high] = Array.isArray(value) && value.length === 2 ? value : [undefined, undefined];
    const ordered = typeof low === "number" && (high === null || (typeof high === "number" && low <= high));
    if (!ordered) fail(field, value, "[low, high], where high may be null for no limit");
  } else if (field === "adaptive") {
    checkAdaptive(value);
  } else if (typeof value !== typeof defaultConfig[field]) {
    fail(field, value, `a ${typeof defaultConfig[field]}`);
  } else if (typeof value === "number" && !(value >= 0 && Number.isFinite(value))) {
    fail(field, value, "a number of at least 0");
  } else if (/[dD]ropout$/.test(field) && (value as number) >= 1) {
    fail(field, value, "below 1");
  }
}

function checkAdaptive(value: unknown): void {
  if (value === null) return;
  const wanted = "null or { cutoffs: increasing whole numbers, divValue: a whole number of at least 1 }";
  if (typeof value !== "object" || value === undefined) fail("adaptive", value, wanted);
  const { cutoffs, divValue, ...rest } = value as Record<string, unknown>;
  const rising =
    Array.isArray(cutoffs) && cutoffs.every((n, i) => Number.isInteger(n) && n > 0 && (i === 0 || n > cutoffs[i - 1]));
  if (!rising || !Number.isInteger(divValue) || (divValue as number) < 1 || Object.keys(rest).length > 0) {
    fail("adaptive", value, wanted);
  }
}

/** The fields that a configuration may have. */
export const configFields = Object.keys(defaultConfig) as readonly (keyof ModelConfig)[];

/**
 * A whole configuration from some of its fields. @throws ConfigError naming an unknown field, a value of the wrong kind,
 * or sizes that do not fit together
 */
export function modelConfig(fields: Partial<ModelConfig>): ModelConfig {
  for (const field of Object.keys(fields)) {
    if (!configFields.includes(field as keyof ModelConfig))
      throw new ConfigError(`${field}: no such field of a model.`);
  }
  const config: ModelConfig = { ...defaultConfig, ...fields };
  for (const field of configFields) checkField(field, config[field]);
  const { variant, dModel, expand, headDim, nGroups } = config;
  const dInner = expand * dModel;
  if (baseOf(variant) === "mamba2") {
    if (dInner % headDim !== 0) fail("headDim", headDim, `a divisor of expand x dModel = ${dInner}`);
    if ((dInner / headDim) % nGroups !== 0) fail("nGroups", nGroups, `a divisor of the ${dInner / headDim} heads`);
  }
  if (variant === "diffmamba" && expand % 2 !== 0) fail("expand", expand, "even: each branch has half");
  if (variant === "diffmamba2") {
    if (expand % 2 !== 0) fail("expand", expand, "even: each branch has half");
    if (headDim % 2 !== 0) fail("headDim", headDim, "even: each branch has half");
  }
  return config;
}
