// Model folders: config.json and the weights beside it, as the Hugging Face library lays them out.
// Knows forms, weights and files. Knows modules, but not which: the model is made by who opens a folder.

import { type FileSystem, joinPath, writeFileAtomic } from "@diffmamba/files";
import type { Module } from "@diffmamba/nn";
import type { ModelConfig } from "../config.js";
import {
  FormatError,
  type JsonObject,
  type JsonValue,
  openCheckpointTensors,
  readLooseJson,
  stringifyLooseJson,
  writeShardedSafetensors,
} from "../formats/index.js";
import { readConfig, writeConfig } from "./config.js";
import { lazyWeights, readWeights } from "./weights.js";

export const configName = "config.json";

/** What a config.json says of special tokens: a number each, a list of them, or null. Kept from loading to saving. */
export interface TokenIds {
  readonly bos: JsonValue;
  readonly eos: JsonValue;
  readonly pad: JsonValue;
}

export const noTokenIds: TokenIds = { bos: null, eos: null, pad: null };

/** A model's description, without its weights. */
export interface ModelDescription {
  readonly config: ModelConfig;
  readonly tokenIds: TokenIds;
}

/**
 * What the config.json of a folder says.
 * @throws FormatError for a folder that is missing or has none, and for one that is not supported, naming the key; FileError
 */
export async function describeModel(files: FileSystem, folder: string): Promise<ModelDescription> {
  const path = joinPath(folder, configName);
  const kind = (await files.stat(folder))?.kind;
  if (kind !== "directory")
    throw new FormatError(folder, kind === undefined ? "no such folder" : "no folder, but a file");
  if ((await files.stat(path))?.kind !== "file") throw new FormatError(folder, `no model: it has no ${configName}`);
  const json = await readLooseJson(files, path);
  const config = readConfig(json, path);
  const { bos_token_id: bos = null, eos_token_id: eos = null, pad_token_id: pad = null } = json as JsonObject;
  return { config, tokenIds: { bos, eos, pad } };
}

/** Reads the weights of a folder into a model of its configuration. @throws FormatError, FileError */
export async function fillModel(module: Module, config: ModelConfig, files: FileSystem, folder: string): Promise<void> {
  const tensors = await openCheckpointTensors(files, folder);
  try {
    await readWeights(module, tensors, config.tieEmbeddings);
  } finally {
    await tensors.close();
  }
}

export interface SaveOptions {
  /** The most bytes of tensors in one file; larger models are sharded. 5e9 by default. */
  readonly maxShardBytes?: number;
}

const typeNames: Readonly<Record<string, string>> = {
  f32: "float32",
  f64: "float64",
  bf16: "bfloat16",
  f16: "float16",
};

/**
 * Writes config.json and the weights, in the parameters' own types, bit for bit. The folder is made where it is missing. A
 * crash in between is not survived: write to a new folder and rename it where that matters.
 * @throws FileError
 */
export async function saveModel(
  module: Module,
  { config, tokenIds }: ModelDescription,
  files: FileSystem,
  folder: string,
  options: SaveOptions = {},
): Promise<void> {
  await writeShardedSafetensors(files, folder, lazyWeights(module), options);
  const [first] = module.parameters();
  const json = {
    ...writeConfig(config),
    torch_dtype: typeNames[first.dtype],
    bos_token_id: tokenIds.bos,
    eos_token_id: tokenIds.eos,
    pad_token_id: tokenIds.pad,
  };
  await writeFileAtomic(files, joinPath(folder, configName), `${stringifyLooseJson(json)}\n`);
}
