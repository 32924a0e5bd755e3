// Layer: apps/cli, commands. `data prepare`: a file into a token store.
import {
  dataSets,
  type PrepareProgress,
  prepareBytes,
  prepareDataSet,
  prepareText,
  type TokenStore,
} from "@diffmamba/datasets";
import { nodeFiles } from "@diffmamba/files/node";
import { type Command, Option } from "commander";
import { findData, namedTokenizer } from "../data.js";
import { UsageError } from "../errors.js";
import { addJsonOption, numberBetween } from "../options.js";
import type { Context } from "../program.js";
import { showPreparation } from "../progress.js";
import { didYouMean } from "../suggest.js";
import type { Terminal } from "../terminal.js";

interface PrepareFlags {
  readonly from: string;
  readonly out: string;
  readonly tokenizer?: string;
  readonly newline?: "keep" | "drop";
  readonly valid?: number;
  readonly test?: number;
  readonly strip?: boolean;
  readonly name?: string;
  readonly overwrite?: boolean;
}

const kinds = [...Object.keys(dataSets), "text", "bytes"];

/** Flags that only plain files have: a known data set is split and stripped as it always is. */
const plainFlags = ["tokenizer", "valid", "test", "strip", "name"] as const;

function checkFlags(kind: string, flags: PrepareFlags): void {
  if (!kinds.includes(kind))
    throw new UsageError(`data prepare ${kind}: no such kind of data.${didYouMean(kind, kinds, 9)}`);
  const wrong = Object.hasOwn(dataSets, kind)
    ? plainFlags.find((name) => flags[name] !== undefined)
    : flags.newline !== undefined && kind === "text"
      ? "newline"
      : kind === "bytes" && flags.tokenizer !== undefined
        ? "tokenizer"
        : undefined;
  if (wrong !== undefined) throw new UsageError(`--${wrong} does not go with data prepare ${kind}.`);
}

async function prepare(
  kind: string,
  flags: PrepareFlags,
  onProgress: (progress: PrepareProgress) => void,
): Promise<TokenStore> {
  const { valid = 0.05, test = 0.05, newline, strip, name, overwrite } = flags;
  const files = nodeFiles();
  const common = { files, source: findData(flags.from), out: flags.out, onProgress, ...(overwrite && { overwrite }) };
  if (Object.hasOwn(dataSets, kind)) return prepareDataSet(kind, { ...common, ...(newline && { newline }) });
  const splits = { ...(valid > 0 && { valid: { fraction: valid } }), ...(test > 0 && { test: { fraction: test } }) };
  const plain = { ...common, splits, ...(strip && { strip }), ...(name !== undefined && { name }) };
  if (kind === "bytes") return prepareBytes({ ...plain, ...(newline && { newline }) });
  const tokenizer = await namedTokenizer(files, flags.tokenizer ?? "characters");
  return prepareText({ ...plain, ...(tokenizer && { tokenizer }) });
}

async function run(terminal: Terminal, kind: string, flags: PrepareFlags): Promise<void> {
  checkFlags(kind, flags);
  const progress = showPreparation(terminal);
  let store: TokenStore;
  try {
    store = await prepare(kind, flags, progress.show);
  } finally {
    progress.end();
  }
  const { path, manifest, vocabSize } = store;
  const splits = Object.entries(manifest.splits);
  terminal.result(
    {
      store: path,
      name: manifest.name,
      vocabSize,
      tokenizer: manifest.tokenizer.kind,
      source: manifest.source,
      splits: manifest.splits,
    },
    [
      `${path}: ${manifest.name}, ${vocabSize.toLocaleString("en-US")} ${manifest.tokenizer.kind === "tokenizer.json" ? "tokens" : "symbols"}`,
      ...splits.map(([split, { tokens }]) => `  ${split.padEnd(6)} ${tokens.toLocaleString("en-US")} tokens`),
    ].join("\n"),
  );
}

export function registerData(program: Command, context: Context): void {
  const data = program.command("data").description("Prepare data.");
  const command = data
    .command("prepare")
    .argument("<kind>", `what the file holds: ${kinds.join(", ")}`)
    .summary("make a token store from a file")
    .description(
      "Makes a token store from a local file; .gz and .xz are unpacked on the way. text8, enwik8 and wiki8 are split as their\n" +
        "published figures want it, and a file of another size is refused under their names.",
    )
    .requiredOption("--from <file>", "the file, or its name in the folder DIFFMAMBA_DATA")
    .requiredOption("--out <folder>", "where the store goes")
    .option("--tokenizer <name>", "text: characters (of the text), text8, or a folder or file with a tokenizer")
    .addOption(new Option("--newline <what>", "enwik8 and bytes: newline bytes stay or go").choices(["keep", "drop"]))
    .option("--valid <share>", "text and bytes: share of the valid split (default: 0.05)", numberBetween(0, 0.99))
    .option("--test <share>", "text and bytes: share of the test split (default: 0.05)", numberBetween(0, 0.99))
    .option("--strip", "text and bytes: leave out white space at both ends of each split")
    .option("--name <name>", "text and bytes: the data's name in the store")
    .option("--overwrite", "replace a store that is there");
  addJsonOption(command).action(context.run(run));
}
