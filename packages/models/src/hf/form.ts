// Model folders: what a form of config.json is, and when two configurations are of the same model.
// Knows configurations. Knows no form and no file.

import { baseOf, type ModelConfig } from "../config.js";
import type { JsonObject } from "../formats/index.js";

/** A form that a folder's config.json may have. */
export interface ModelForm {
  /** As messages name it. */
  readonly name: string;
  /** True if the file is of this form, whatever it holds. */
  matches(json: JsonObject): boolean;
  /** @throws FormatError naming the file and the key that is missing, wrong, or not supported here */
  read(json: JsonObject, path: string): ModelConfig;
}

/** A form that models are also saved in. */
export interface WritableForm extends ModelForm {
  /** What the form has of a configuration; undefined where its variant has no place there. */
  write(config: ModelConfig): JsonObject | undefined;
}

/** What decides first values, training and speed only: a trained model computes the same whatever they are. */
const notOfTheFunction: readonly (keyof ModelConfig)[] = [
  "dtMin",
  "dtMax",
  "dtInitFloor",
  "aInit",
  "chunkSize",
  "dropout",
  "embeddingDropout",
  "headDropout",
  "initializerRange",
  "rescaleResidual",
];

const ofMamba2: readonly (keyof ModelConfig)[] = [
  "headDim",
  "nGroups",
  "normGroups",
  "dtLimit",
  "dHasHeadDim",
  "rmsNorm",
  "normBeforeGate",
];
const ofDifferential: readonly (keyof ModelConfig)[] = ["pattern", "lambda", "subln", "lambdaIndex"];

/** The configuration without what its trained model does not depend on, and with what zeros stand for. */
function essence(config: ModelConfig): Partial<ModelConfig> {
  const isMamba2 = baseOf(config.variant) === "mamba2";
  const isVanilla = config.variant === "mamba" || config.variant === "mamba2";
  const dropped = new Set<keyof ModelConfig>([
    ...notOfTheFunction,
    ...(isMamba2 ? (["dtRank"] as const) : ofMamba2),
    ...(isVanilla ? ofDifferential : []),
    ...(config.feedForward === 0 ? (["lambdaIndex"] as const) : []),
  ]);
  const resolved: ModelConfig = {
    ...config,
    dtRank: config.dtRank || Math.ceil(config.dModel / 16),
    normGroups: config.normGroups || config.nGroups,
  };
  return Object.fromEntries(Object.entries(resolved).filter(([field]) => !dropped.has(field as keyof ModelConfig)));
}

/** True if both have the same tensors and compute the same from them. */
export function sameModel(a: ModelConfig, b: ModelConfig): boolean {
  const [first, second] = [essence(a), essence(b)];
  return Object.keys({ ...first, ...second }).every((key) => {
    const field = key as keyof ModelConfig;
    return JSON.stringify(first[field]) === JSON.stringify(second[field]);
  });
}

/** The fields of `config` in which it differs from `other`. */
export function differences(config: ModelConfig, other: ModelConfig): Partial<ModelConfig> {
  const fields = Object.entries(config).filter(([key, value]) => {
    return JSON.stringify(value) !== JSON.stringify(other[key as keyof ModelConfig]);
  });
  return Object.fromEntries(fields);
}
