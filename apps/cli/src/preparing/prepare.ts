// Layer: apps/cli, preparing. Makes the store that `data prepare` is asked for. Knows data sets and tokenizers. Knows no flag's spelling.
import { existsSync } from "node:fs";
import path from "node:path";
import {
  type BabiVariant,
  babiSources,
  type DocumentProgress,
  type DownloadProgress,
  fetchHub,
  joinTexts,
  type PrepareProgress,
  pg19Sources,
  prepareBytes,
  prepareDataSet,
  prepareDocuments,
  prepareText,
  prepareWikiText,
  type TextSource,
  type TokenStore,
  textKind,
  textSource,
} from "@diffmamba/datasets";
import { nodeFiles } from "@diffmamba/files/node";
import type { Tokenizer } from "@diffmamba/tokenizer";
import { textsEncoder } from "@diffmamba/tokenizer/node";
import { findData, namedTokenizer } from "../data.js";
import { CommandError } from "../errors.js";
import { hubPrefix, type PrepareFlags, type Wanted } from "./flags.js";
import { downloadsFolder, hubSettings, locate } from "./locate.js";

export type AnyProgress = PrepareProgress | DocumentProgress | DownloadProgress;

export interface PrepareCall {
  readonly flags: PrepareFlags;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: AnyProgress) => void;
}

const defaultShare = 0.05;

/** What every preparation is told. Text that a table cannot encode is worth threads of its own. */
function common({ flags, signal, onProgress }: PrepareCall) {
  const { out, overwrite = false, shardTokens, threads } = flags;
  const encoder = (tokenizer: Tokenizer) => textsEncoder(tokenizer, threads === undefined ? {} : { threads });
  return {
    files: nodeFiles(),
    out,
    overwrite,
    resume: true,
    signal,
    onProgress,
    ...(shardTokens !== undefined && { shardTokens }),
    ...(threads !== 1 && { encoder }),
  };
}

/** Characters and bytes are encoded as fast as they are read: in this thread. */
function inThisThread<T extends { readonly encoder?: unknown }>({ encoder: _, ...rest }: T): Omit<T, "encoder"> {
  return rest;
}

/** Shares of documents. Those that nobody asked for may be empty: few documents may give none. */
function sharesOf({ valid, test, splitSeed }: PrepareFlags) {
  const optional = valid === undefined && test === undefined;
  const seed = splitSeed === undefined ? {} : { seed: splitSeed };
  return { valid: valid ?? defaultShare, test: test ?? defaultShare, optional, ...seed };
}

async function tokenizerOf({ tokenizer = "characters" }: PrepareFlags) {
  const found = await namedTokenizer(nodeFiles(), tokenizer);
  return found === undefined ? {} : { tokenizer: found };
}

/** A file that is one text is split by bytes; documents one by one. */
async function text({ from }: Wanted, call: PrepareCall): Promise<TokenStore> {
  const { flags } = call;
  const { valid = defaultShare, test = defaultShare, strip, name, field } = flags;
  const found = findData(from ?? "");
  const tokenizer = await tokenizerOf(flags);
  const named = { ...tokenizer, ...(name !== undefined && { name }) };
  const options = common(call);
  const files = nodeFiles();
  const isFolder = (await files.stat(found))?.kind === "directory";
  if (!isFolder && textKind(found) === "text") {
    const splits = { ...(valid > 0 && { valid: { fraction: valid } }), ...(test > 0 && { test: { fraction: test } }) };
    const plain = { ...named, source: found, splits, ...(strip && { strip }) };
    const slow = tokenizer.tokenizer?.kind === "tokenizer.json";
    return slow ? prepareText({ ...options, ...plain }) : prepareText({ ...inThisThread(options), ...plain });
  }
  if (strip) throw new CommandError(`--strip is for a file that is one text; ${found} holds documents.`);
  const source = await textSource(files, found, field === undefined ? {} : { field });
  return prepareDocuments({ ...options, ...named, source, shares: sharesOf(flags) });
}

async function hub({ name: what }: Wanted, call: PrepareCall): Promise<TokenStore> {
  const { flags, signal, onProgress } = call;
  const { config, revision, field, splits = ["train"] } = flags;
  const repo = what.slice(hubPrefix.length);
  const files = nodeFiles();
  const folder = path.join(downloadsFolder(flags), "hub", repo.replaceAll("/", "--"), revision ?? "main");
  const settings = {
    repo,
    ...hubSettings(),
    ...(config !== undefined && { config }),
    ...(revision !== undefined && { revision }),
  };
  const fetched = await fetchHub(settings, splits, folder, { files, signal, onProgress });
  const options = field === undefined ? {} : { field };
  const sources: Record<string, TextSource> = {};
  for (const [split, paths] of Object.entries(fetched)) {
    const parts = await Promise.all(paths.map((file) => textSource(files, file, options)));
    sources[split] = joinTexts(`${what} (${split})`, parts);
  }
  const only = splits.length === 1 ? sources[splits[0] as string] : undefined;
  const source = only === undefined ? { source: sources } : { source: only, shares: sharesOf(flags) };
  return prepareDocuments({ ...common(call), ...(await tokenizerOf(flags)), ...source, name: flags.name ?? repo });
}

/** @throws what the packages throw, each naming the file or address */
export async function prepare(wanted: Wanted, call: PrepareCall): Promise<TokenStore> {
  const { kind, name } = wanted;
  const { flags, signal, onProgress } = call;
  const files = nodeFiles();
  if (!flags.overwrite && existsSync(flags.out)) {
    throw new CommandError(`${flags.out}: something is already there; choose another folder, or add --overwrite.`);
  }
  if (kind === "text") return text(wanted, call);
  if (kind === "hub") return hub(wanted, call);
  if (kind === "bytes") {
    const { valid = defaultShare, test = defaultShare, newline, strip, name: own } = flags;
    const splits = { ...(valid > 0 && { valid: { fraction: valid } }), ...(test > 0 && { test: { fraction: test } }) };
    const plain = {
      source: findData(wanted.from ?? ""),
      splits,
      ...(strip && { strip }),
      ...(own !== undefined && { name: own }),
    };
    return prepareBytes({ ...inThisThread(common(call)), ...plain, ...(newline && { newline }) });
  }
  const from = await locate(wanted, flags, { files, signal, onProgress });
  const options = common(call);
  switch (kind) {
    case "set": {
      const { newline } = flags;
      return prepareDataSet(name, { ...inThisThread(options), source: from, ...(newline && { newline }) });
    }
    case "wikitext-103": {
      const { level = "words", eos } = flags;
      if (level === "raw") return prepareWikiText({ ...options, ...(await tokenizerOf(flags)), from, level });
      return prepareWikiText({ ...inThisThread(options), from, level, ...(eos && { lineEnds: eos }) });
    }
    case "pg19":
      return prepareDocuments({
        ...options,
        ...(await tokenizerOf(flags)),
        source: await pg19Sources(files, from),
        name,
      });
    case "babi": {
      const { variant, tasks } = flags;
      const chosen = { ...(variant !== undefined && { variant: variant as BabiVariant }), ...(tasks && { tasks }) };
      const source = await babiSources(files, from, chosen);
      const parts = [variant ?? "en", ...(tasks ? [tasks.map((task) => `qa${task}`).join("+")] : [])];
      const full = tasks === undefined && variant === undefined;
      return prepareDocuments({
        ...options,
        ...(await tokenizerOf(flags)),
        source,
        name: full ? name : `${name} (${parts.join(", ")})`,
      });
    }
  }
}
