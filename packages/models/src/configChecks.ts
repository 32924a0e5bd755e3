// What a model's configuration must be: each field by itself, and all of them together. Messages begin with the field.
// Knows names and numbers. Knows no tensor and no file.

import { lambdaModes } from "@diffmamba/differential";
import type { ModelConfig, Variant } from "./config.js";

/** A configuration that no model can have. The message names the field. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

function fail(field: keyof ModelConfig, value: unknown, wanted: string): never {
  throw new ConfigError(`${field}: ${JSON.stringify(value)}; it must be ${wanted}.`);
}

const choices: Readonly<Partial<Record<keyof ModelConfig, readonly string[]>>> = {
  lambda: lambdaModes,
  lambdaIndex: ["mixer", "sublayer"],
  aInit: ["uniform", "range"],
  residual: ["pre", "post"],
  norm: ["rms", "layer"],
};

/** Fields that are whole numbers, by the least that they may be. */
const wholeNumbers: Readonly<Partial<Record<keyof ModelConfig, 0 | 1>>> = {
  vocabSize: 1,
  dModel: 1,
  nLayers: 1,
  dState: 1,
  dConv: 1,
  expand: 1,
  headDim: 1,
  nGroups: 1,
  normGroups: 0,
  dtRank: 0,
  chunkSize: 1,
  mixersPerBlock: 1,
  feedForward: 0,
};

const isWhole = (value: unknown, least: number): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= least;

function checkPattern(value: unknown): void {
  if (typeof value === "string" && ["all", "alternate", "quarter", "none"].includes(value)) return;
  if (Array.isArray(value) && value.every((layer) => isWhole(layer, 0))) return;
  fail("pattern", value, '"all", "alternate", "quarter", "none" or a list of layers, counted from 0');
}

function checkDtLimit(value: unknown): void {
  const [low, high] = Array.isArray(value) && value.length === 2 ? value : [undefined, undefined];
  const bounded = typeof high === "number" && Number.isFinite(high);
  const ordered = typeof low === "number" && low >= 0 && (high === null || (bounded && low <= high));
  if (!ordered) fail("dtLimit", value, "[low, high], where high may be null for no limit");
}

const adaptiveFlags = ["reversed", "zeroHead", "emptyClusters"];

function checkAdaptive(value: unknown): void {
  if (value === null) return;
  const wanted =
    "null or { cutoffs: increasing whole numbers, at least one, divValue: a whole number of at least 1 }, and in it " +
    `${adaptiveFlags.join(", ")} as true or false`;
  if (typeof value !== "object") fail("adaptive", value, wanted);
  const { cutoffs, divValue, ...rest } = value as Record<string, unknown>;
  const list: unknown[] = Array.isArray(cutoffs) ? cutoffs : [];
  const rising = list.every((n, i) => isWhole(n, 1) && (i === 0 || n > (list[i - 1] as number)));
  const flags = Object.entries(rest).every(([key, flag]) => adaptiveFlags.includes(key) && typeof flag === "boolean");
  if (list.length === 0 || !rising || !isWhole(divValue, 1) || !flags) fail("adaptive", value, wanted);
}

function checkField(field: keyof ModelConfig, value: unknown, like: unknown): void {
  const allowed = choices[field];
  const least = wholeNumbers[field];
  if (allowed !== undefined) {
    if (!allowed.includes(value as string)) fail(field, value, `one of ${allowed.join(", ")}`);
  } else if (least !== undefined) {
    if (!isWhole(value, least)) fail(field, value, `a whole number of at least ${least}`);
  } else if (field === "pattern") {
    checkPattern(value);
  } else if (field === "dtLimit") {
    checkDtLimit(value);
  } else if (field === "adaptive") {
    checkAdaptive(value);
  } else if (typeof value !== typeof like) {
    fail(field, value, `a ${typeof like}`);
  } else if (typeof value === "number" && !(value >= 0 && Number.isFinite(value))) {
    fail(field, value, "a number of at least 0");
  } else if (/[dD]ropout$/.test(field) && (value as number) >= 1) {
    fail(field, value, "below 1");
  }
}

const mamba1: readonly (keyof ModelConfig)[] = [
  "nGroups",
  "normGroups",
  "dtLimit",
  "dHasHeadDim",
  "rmsNorm",
  "normBeforeGate",
];

/** What a variant has no place for; such a field must be as it is by default, or it would be passed over in silence. */
const withoutPlace: Readonly<Partial<Record<Variant, readonly (keyof ModelConfig)[]>>> = {
  mamba: mamba1,
  diffmamba: [...mamba1, "lambda"],
  diffs6: [...mamba1, "lambda", "subln", "learnableInitialState"],
  diffmamba2: ["bias"],
  diffs6mamba2: ["rmsNorm", "dHasHeadDim", "learnableInitialState"],
};

function checkVariant(config: ModelConfig, defaults: ModelConfig): void {
  const { variant } = config;
  for (const field of withoutPlace[variant] ?? []) {
    const [value, initial] = [config[field], defaults[field]].map((one) => JSON.stringify(one));
    if (value !== initial) fail(field, config[field], `${initial}: the variant ${variant} has no other`);
  }
}

/** Sizes that must divide one another. */
function checkSizes({ variant, dModel, expand, headDim, nGroups, normGroups }: ModelConfig): void {
  const isMamba1 = variant === "mamba" || variant === "diffmamba" || variant === "diffs6";
  const branches = variant === "diffmamba" || variant === "diffmamba2";
  if (branches && expand % 2 !== 0) fail("expand", expand, "even: each branch has half");
  if (variant === "diffmamba2e" && dModel % 2 !== 0) fail("dModel", dModel, "even: the output is cut in halves");
  if (isMamba1) return;
  const dInner = expand * dModel;
  if (variant === "diffmamba2" && headDim % 2 !== 0) fail("headDim", headDim, "even: each branch has half");
  if (dInner % headDim !== 0) fail("headDim", headDim, `a divisor of expand x dModel = ${dInner}`);
  if ((dInner / headDim) % nGroups !== 0) fail("nGroups", nGroups, `a divisor of the ${dInner / headDim} heads`);
  const channels = variant === "diffmamba2" ? dInner / 2 : dInner;
  if (normGroups > 0 && channels % normGroups !== 0)
    fail("normGroups", normGroups, `a divisor of ${channels} channels`);
}

function checkVocabulary({ adaptive, dModel, vocabSize, tieEmbeddings }: ModelConfig): void {
  if (adaptive === null) return;
  if (!tieEmbeddings) fail("tieEmbeddings", tieEmbeddings, "true: an adaptive softmax shares the embedding's tables");
  const clusters = adaptive.cutoffs.filter((cutoff) => cutoff < vocabSize).length;
  if (dModel < adaptive.divValue ** clusters) {
    fail("adaptive", adaptive, `such that the narrowest of ${clusters + 1} clusters has a width: dModel is ${dModel}`);
  }
}

/** @throws ConfigError naming the field that is wrong, by itself or beside the others */
export function checkConfig(config: ModelConfig, defaults: ModelConfig, variants: readonly Variant[]): void {
  if (!variants.includes(config.variant)) fail("variant", config.variant, `one of ${variants.join(", ")}`);
  for (const field of Object.keys(defaults) as (keyof ModelConfig)[]) {
    if (field !== "variant") checkField(field, config[field], defaults[field]);
  }
  const { pattern, nLayers, mixersPerBlock } = config;
  const mixers = nLayers * mixersPerBlock;
  const beyond = typeof pattern === "string" ? undefined : pattern.find((layer) => layer >= mixers);
  if (beyond !== undefined) fail("pattern", pattern, `a list of layers below ${mixers}; there is no layer ${beyond}`);
  checkVariant(config, defaults);
  checkSizes(config);
  checkVocabulary(config);
}
