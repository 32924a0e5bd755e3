// For tests: one tiny configuration of every kind of model, and how two results are compared.
// Knows configurations and tensors. Knows no test runner.

import type { Tensor } from "@diffmamba/tensor";
import { type ModelConfig, modelConfig } from "./config.js";

const sizes: Partial<ModelConfig> = {
  vocabSize: 11,
  dModel: 8,
  nLayers: 2,
  dState: 4,
  headDim: 4,
  chunkSize: 4,
  initializerRange: 1,
};

/** A model of both kinds of layers, whose logits are far enough apart for a greedy choice. */
export const alternating: Partial<ModelConfig> = {
  pattern: "alternate",
  vocabSize: 26,
  dModel: 16,
  nLayers: 3,
  dState: 8,
  headDim: 8,
  initializerRange: 0.7,
};

/** Tokens of it, in rows of several lengths. */
export const unevenRows: readonly (readonly number[])[] = [[3, 1, 4, 1, 5], [9, 2], [6]];

const post: Partial<ModelConfig> = {
  variant: "diffmamba2",
  lambdaIndex: "sublayer",
  residual: "post",
  norm: "layer",
  mixersPerBlock: 2,
  feedForward: 2,
  embeddingScale: 2,
};

const kinds: Readonly<Record<string, Partial<ModelConfig>>> = {
  mamba: { variant: "mamba" },
  "mamba, biased, of rank 3": { variant: "mamba", bias: true, convBias: false, dtRank: 3 },
  mamba2: { variant: "mamba2" },
  "mamba2 of 2 groups": { variant: "mamba2", nGroups: 2, bias: true },
  "mamba2 of 2 groups and one norm": { variant: "mamba2", nGroups: 2, normGroups: 1 },
  "mamba2 without the gated norm": { variant: "mamba2", rmsNorm: false, dHasHeadDim: true },
  "mamba2, norm before gate": { variant: "mamba2", normBeforeGate: true, dtLimit: [0.01, 0.05] },
  "mamba2, untied, layer norm": { variant: "mamba2", tieEmbeddings: false, norm: "layer" },
  "mamba with a learned state": { variant: "mamba", learnableInitialState: true },
  "mamba2 with a learned state": { variant: "mamba2", learnableInitialState: true },
  "diffmamba2 with a learned state": { learnableInitialState: true, pattern: "alternate" },
  diffmamba: { variant: "diffmamba" },
  diffmamba2: {},
  "diffmamba2, alternate": { pattern: "alternate" },
  "diffmamba2, the last layer": { pattern: [1], lambda: "scalar" },
  "diffmamba2 of 2 groups and one norm": { nGroups: 2, normGroups: 1, headDim: 8 },
  "diffmamba2, lambda by channel": { lambda: "channel", subln: false },
  "diffmamba2 without lambda": { lambda: "none" },
  diffs6: { variant: "diffs6" },
  diffs6mamba2: { variant: "diffs6mamba2", lambda: "scalar" },
  diffmamba2e: { variant: "diffmamba2e" },
  "post-norm": post,
  "post-norm, adaptive": { ...post, adaptive: { cutoffs: [4, 7], divValue: 2 } },
  "adaptive of one width": { variant: "mamba2", adaptive: { cutoffs: [4, 7], divValue: 1 } },
  "adaptive with empty clusters": { ...post, adaptive: { cutoffs: [20, 30], divValue: 1 } },
  "adaptive by the textbook": {
    ...post,
    adaptive: { cutoffs: [4, 7, 20], divValue: 2, reversed: false, zeroHead: false, emptyClusters: false },
  },
};

/** Every kind of model, by what is particular about it. */
export const tinyModels: readonly (readonly [string, ModelConfig])[] = Object.entries(kinds).map(([name, fields]) => [
  name,
  modelConfig({ ...sizes, ...fields }),
]);

/** The configuration of one kind. */
export function tinyModel(name: string): ModelConfig {
  const found = tinyModels.find(([key]) => key === name);
  if (found === undefined) throw new RangeError(`there is no tiny model "${name}".`);
  return found[1];
}

/** rms(a - b) / rms(b). */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let [difference, scale] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    scale += b[i] ** 2;
  }
  return Math.sqrt(difference / scale);
}

/** The elements, and the tensor freed. */
export async function taken(tensor: Tensor): Promise<number[]> {
  using own = tensor;
  return Array.from(await own.data());
}
