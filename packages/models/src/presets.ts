// Presets: configurations under a name. The published sizes of Mamba and Mamba-2, the paper's 370M models, and its small
// models for text8, enwik8 and WikiText-103 (arXiv 2507.06204, appendix A, and its released code).
// To add one, add an entry to `presets`. Knows configurations. Knows no training setting, no tensor and no file.

import { type ModelConfig, modelConfig } from "./config.js";
import { ConfigError } from "./configChecks.js";

type Fields = Partial<ModelConfig>;

/** The GPT-NeoX vocabulary of 50277, padded as state-spaces/mamba pads it for each of the two. */
const neoxMamba = 50280;
const neoxMamba2 = 50288;

/** Widths and depths of state-spaces/mamba's models; the two generations name two of them differently. */
const sizes: readonly (readonly [mamba: string, mamba2: string, dModel: number, nLayers: number])[] = [
  ["130m", "130m", 768, 24],
  ["370m", "370m", 1024, 48],
  ["790m", "780m", 1536, 48],
  ["1.4b", "1.3b", 2048, 48],
  ["2.8b", "2.7b", 2560, 64],
];

const mamba2: Fields = { variant: "mamba2", vocabSize: neoxMamba2, dState: 128, headDim: 64, chunkSize: 256 };

function publishedPresets(): Record<string, Fields> {
  const all: Record<string, Fields> = {};
  for (const [name, , dModel, nLayers] of sizes) {
    all[`mamba-${name}`] = { variant: "mamba", vocabSize: neoxMamba, dModel, nLayers, dState: 16 };
  }
  for (const [, name, dModel, nLayers] of sizes) all[`mamba2-${name}`] = { ...mamba2, dModel, nLayers };
  return all;
}

/**
 * The paper's 370M models: the hybrid that its tables call Diff-Mamba, with every second block differential, the full
 * one, and for each the control that has all of a differential block but lambda.
 */
const diff370m: Fields = { ...mamba2, variant: "diffmamba2", dModel: 1024, nLayers: 48 };
const large: Record<string, Fields> = {
  "diffmamba2-370m": { ...diff370m, pattern: "alternate" },
  "diffmamba2-370m-full": { ...diff370m, pattern: "all" },
  "diffmamba2-370m-control": { ...diff370m, pattern: "alternate", lambda: "none" },
  "diffmamba2-370m-full-control": { ...diff370m, pattern: "all", lambda: "none" },
};

/** What the paper's small models are besides their width: post-norm blocks of two mixers and a feed-forward. */
function postNorm(dModel: number): Fields {
  return {
    dModel,
    dState: 64,
    headDim: dModel / 8,
    pattern: "all",
    lambda: "vecsum",
    lambdaIndex: "sublayer",
    residual: "post",
    norm: "layer",
    mixersPerBlock: 2,
    feedForward: 4,
    rescaleResidual: false,
    initializerRange: 0.5 * dModel ** -0.5,
    embeddingScale: Math.sqrt(dModel),
    embeddingDropout: 0.25,
    headDropout: 0.25,
  };
}

const cutoffs = [19997, 39997, 199997];

/** Vocabulary, width of the rarer words, and dropout by the number of blocks. */
const dataSets = {
  text8: { vocabSize: 27, divValue: 1, dropouts: { 6: 0.4, 12: 0.5 } },
  enwik8: { vocabSize: 204, divValue: 1, dropouts: { 6: 0.4, 12: 0.5 } },
  wt103: { vocabSize: 267735, divValue: 4, dropouts: { 6: 0.25, 12: 0.5 } },
};

/** Vanilla, differential, and the control that has all of a differential mixer but lambda. */
const kinds: Readonly<Record<string, Fields>> = {
  mamba2: { variant: "mamba2" },
  diffmamba2: { variant: "diffmamba2" },
  control: { variant: "diffmamba2", lambda: "none" },
};

/** The width of table 2's Diff-S6, which makes up for its second scan. */
const diffS6Width = 864;

function smallPresets(): Record<string, Fields> {
  const all: Record<string, Fields> = {};
  for (const [name, { vocabSize, divValue, dropouts }] of Object.entries(dataSets)) {
    for (const [blocks, dropout] of Object.entries(dropouts)) {
      const nLayers = Number(blocks);
      const fields: Fields = { vocabSize, nLayers, dropout, adaptive: { cutoffs, divValue } };
      for (const [kind, own] of Object.entries(kinds)) {
        all[`${name}-${nLayers}-${kind}`] = { ...postNorm(1024), ...fields, ...own };
      }
    }
  }
  return all;
}

/** The ablation of table 2: text8 with 6 blocks; what is subtracted, how lambda is parameterized, and whether the difference is normed. */
function ablationPresets(small: Readonly<Record<string, Fields>>): Record<string, Fields> {
  const base = small["text8-6-mamba2"];
  const all: Record<string, Fields> = { "table2-mamba2": base, "table2-control": small["text8-6-control"] };
  for (const lambda of ["scalar", "vecsum"] as const) {
    for (const [ending, subln] of [
      ["", true],
      ["-nosubln", false],
    ] as const) {
      const own = { lambda, subln };
      const diffS6 = { ...base, ...postNorm(diffS6Width), variant: "diffs6mamba2" as const };
      all[`table2-diffs6mamba2-${lambda}${ending}`] = { ...diffS6, ...own };
      all[`table2-diffmamba2-${lambda}${ending}`] = { ...base, variant: "diffmamba2", ...own };
    }
  }
  return all;
}

/** One layer that learns in context to count what follows what, on random Markov chains of two symbols; without the convolution it cannot. */
const markov: Fields = {
  vocabSize: 2,
  dModel: 16,
  nLayers: 1,
  dState: 8,
  headDim: 16,
  lambda: "scalar",
};

const probes: Record<string, Fields> = {
  "markov-mamba2": { ...markov, variant: "mamba2" },
  "markov-diffmamba2": { ...markov, variant: "diffmamba2" },
};

const small = smallPresets();

const presets: Readonly<Record<string, Fields>> = {
  ...publishedPresets(),
  ...large,
  ...small,
  ...ablationPresets(small),
  ...probes,
};

/** The names that {@link preset} knows. */
export const presetNames: readonly string[] = Object.keys(presets);

/** A configuration by its name. @throws ConfigError naming those there are */
export function preset(name: string): ModelConfig {
  const fields = Object.hasOwn(presets, name) ? presets[name] : undefined;
  if (fields === undefined)
    throw new ConfigError(`preset: there is no "${name}"; there are ${presetNames.join(", ")}.`);
  return modelConfig(fields);
}
