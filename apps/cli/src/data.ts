// Layer: apps/cli. From a --data argument to tokens: a token store as it is, a data set by its name, or any file, prepared on the way.
// Knows paths and tokenizers. Knows no model and no command.
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {
  dataSets,
  type PrepareProgress,
  prepareBytes,
  prepareDataSet,
  prepareText,
  storeFile,
  TokenStore,
  type WeightedSource,
} from "@diffmamba/datasets";
import type { FileSystem } from "@diffmamba/files";
import { ByteTokenizer, loadTokenizer, type Tokenizer, text8Tokenizer } from "@diffmamba/tokenizer";
import { CommandError, UsageError } from "./errors.js";
import type { Settings } from "./settings/schema.js";

const endings = ["", ".txt", ".xz", ".gz", ".zip", ".txt.xz", ".txt.gz"];

/**
 * The path of a --data argument: itself, or where there is nothing and it is a plain name, a file or store of that name in the folder
 * DIFFMAMBA_DATA.
 * @throws CommandError saying where was looked
 */
export function findData(argument: string): string {
  if (existsSync(argument)) return argument;
  const folder = process.env.DIFFMAMBA_DATA;
  const plain = !argument.includes("/") && !argument.includes(path.sep);
  if (folder !== undefined && folder !== "" && plain) {
    const found = endings.map((ending) => path.join(folder, argument + ending)).find((file) => existsSync(file));
    if (found !== undefined) return found;
    throw new CommandError(`${argument}: no such file or folder, here or in DIFFMAMBA_DATA (${folder}).`);
  }
  const hint = plain ? " Data is found by its path, or by its name in the folder that DIFFMAMBA_DATA names." : "";
  throw new CommandError(`${argument}: no such file or folder.${hint}`);
}

/** Whether a path is a prepared token store. */
export function isStore(file: string): boolean {
  return existsSync(path.join(file, storeFile));
}

/** @throws CommandError where a folder is no store */
function checkFile(file: string): void {
  if (!statSync(file).isDirectory()) return;
  throw new CommandError(
    `${file}: a folder without ${storeFile}, so no token store. Give a file, or prepare one first: diffmamba data prepare.`,
  );
}

/** The path of a tokenizer: itself, or a folder of that name below `tokenizers` in the folder DIFFMAMBA_DATA. */
export function tokenizerPath(setting: string): string {
  const folder = process.env.DIFFMAMBA_DATA;
  if (existsSync(setting) || folder === undefined || folder === "") return setting;
  const mirrored = path.join(folder, "tokenizers", setting);
  return existsSync(mirrored) ? mirrored : setting;
}

/** The tokenizer that a setting names: undefined for "characters", which are those of the text itself. */
export async function namedTokenizer(files: FileSystem, setting: string): Promise<Tokenizer | undefined> {
  switch (setting) {
    case "characters":
      return undefined;
    case "bytes":
      return new ByteTokenizer();
    case "text8":
      return text8Tokenizer();
    case "words":
      throw new UsageError(
        "data.tokenizer words: words have the vocabulary of a train split, so they want a store that was prepared with one: " +
          "diffmamba data prepare wikitext-103, then --data with its folder.",
      );
    default:
      return loadTokenizer(files, tokenizerPath(setting));
  }
}

export interface PrepareContext {
  readonly files: FileSystem;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: PrepareProgress) => void;
}

/** The name of a known data set that a --data argument means: `text8`, or a file of that name such as `data/text8.xz`. */
export function dataSetName(argument: string): string | undefined {
  const name = path.basename(argument).replace(/\.(txt|zip|gz|xz)/g, "");
  return Object.hasOwn(dataSets, name) ? name : undefined;
}

/**
 * The store that a run trains on: the argument itself where it is one, else made from it in `folder`. A file of a known data set's
 * name and size is split as that data set is.
 */
export async function trainingStore(
  argument: string,
  { tokenizer: setting, valid, test }: Settings["data"],
  folder: string,
  { files, ...rest }: PrepareContext,
): Promise<TokenStore> {
  const source = findData(argument);
  if (isStore(source)) return TokenStore.open(files, source);
  checkFile(source);
  const common = { files, source, out: folder, overwrite: true, ...rest };
  const known = argument === dataSetName(argument) ? argument : undefined;
  if (known !== undefined) return prepareDataSet(known, common);
  const splits = { ...(valid > 0 && { valid: { fraction: valid } }), ...(test > 0 && { test: { fraction: test } }) };
  if (setting === "bytes") return prepareBytes({ ...common, splits });
  const tokenizer = await namedTokenizer(files, setting);
  return prepareText({ ...common, splits, ...(tokenizer && { tokenizer }) });
}

/**
 * The stores of a setting such as `stores/books:0.5,stores/code:2`, which are mixed with another one.
 * @throws UsageError where it is not of that form; CommandError where a store is made with another tokenizer
 */
export async function mixedStores(store: TokenStore, setting: string): Promise<WeightedSource[]> {
  const parts = setting.split(",").filter((part) => part.trim() !== "");
  return Promise.all(
    parts.map(async (part) => {
      const match = /^(.+):([\d.]+)$/.exec(part.trim());
      const [, place = "", weight] = match ?? [];
      if (match === null || !(Number(weight) > 0)) {
        throw new UsageError(
          `data.mix: ${JSON.stringify(part)} is not a store and its weight, such as stores/books:0.5.`,
        );
      }
      const other = await TokenStore.open(store.files, findData(place));
      if (other.manifest.tokenizer.sha256 !== store.manifest.tokenizer.sha256) {
        throw new CommandError(
          `${place}: it was made with another tokenizer than ${store.path}; prepare it with the same one.`,
        );
      }
      return { source: other.split("train"), weight: Number(weight) };
    }),
  );
}

/**
 * A whole file as one row of tokens, in a store of its own that is removed afterwards.
 * @param use what is done with it
 */
export async function withFileTokens<T>(
  file: string,
  tokenizer: Tokenizer,
  { files, ...rest }: PrepareContext,
  use: (store: TokenStore) => Promise<T>,
): Promise<T> {
  checkFile(file);
  const folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-data-"));
  try {
    const common = { files, source: file, out: path.join(folder, "store"), splits: {}, ...rest };
    // Every byte has an id: then the file need not be text.
    const anyByte = tokenizer instanceof ByteTokenizer && tokenizer.vocabSize === 256;
    const store = anyByte ? await prepareBytes(common) : await prepareText({ ...common, tokenizer });
    return await use(store);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
