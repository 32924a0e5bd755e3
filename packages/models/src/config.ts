// The configuration of a language model: plain JSON, every field with its default, checked by name.
// The pre-norm model of the published checkpoints and the post-norm one of the paper's small models are values of it.
// Knows names and numbers. Knows no tensor and no file.

import type { DepthPattern, LambdaMode } from "@diffmamba/differential";
import { ConfigError, checkConfig } from "./configChecks.js";

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

/**
 * An adaptive embedding and softmax. The released models' has oddities; each can be switched off, which gives the textbook's.
 */
export interface AdaptiveConfig {
  /** The tokens where a new cluster begins. */
  readonly cutoffs: readonly number[];
  /** By what the width of each cluster is divided, once more for every further one. */
  readonly divValue: number;
  /** Cluster i is reached through the head's i-th column from its end, as released (true, the default), or from where clusters begin. */
  readonly reversed?: boolean;
  /** The head's own projection begins with zeros, as released (true, the default), or with first values as the others'. */
  readonly zeroHead?: boolean;
  /**
   * Clusters that begin beyond the vocabulary keep their logits in the softmax, never as a target, as released (true, the
   * default), or have none.
   */
  readonly emptyClusters?: boolean;
}

export interface ModelConfig {
  readonly vocabSize: number;
  readonly dModel: number;
  /** Blocks; with a feed-forward each block is mixersPerBlock mixers and one feed-forward. */
  readonly nLayers: number;
  readonly variant: Variant;
  /** Which mixers, counted from 0, are differential. */
  readonly pattern: DepthPattern;
  /** "diffmamba" and "diffs6" have a form of their own, and leave this at its default. */
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
  /**
   * Groups of the gated norm; 0 stands for nGroups, which is what state-spaces/mamba trains. The Hugging Face classes
   * take the norm over all channels, which is 1. The same where nGroups is 1.
   */
  readonly normGroups: number;
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
  /** Tokens a chunk of the scan. The default leaves it to the backend, which may be faster with another. */
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
  /** Adaptive embedding and softmax (Baevski and Auli 2019) instead of plain tables; null for plain ones. */
  readonly adaptive: AdaptiveConfig | null;
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
  normGroups: 0,
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

/** The fields that a configuration may have. */
export const configFields = Object.keys(defaultConfig) as readonly (keyof ModelConfig)[];

/**
 * A whole configuration from some of its fields. @throws ConfigError naming an unknown field, a value of the wrong kind,
 * or sizes that do not fit together
 */
export function modelConfig(fields: Partial<ModelConfig>): ModelConfig {
  for (const field of Object.keys(fields)) {
    if (!configFields.includes(field as keyof ModelConfig)) {
      throw new ConfigError(`${field}: no such field of a model.`);
    }
  }
  const config: ModelConfig = { ...defaultConfig, ...fields };
  checkConfig(config, defaultConfig, variants);
  return config;
}
