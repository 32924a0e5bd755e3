// Layer: apps/cli, commands. `data prepare`: a data set, a file, a folder or a data set of the hub into a token store.
// Knows the flags. Knows nothing of how it is done (preparing/).
import { babiVariants, type TokenStore } from "@diffmamba/datasets";
import { stopSignals } from "@diffmamba/train/node";
import { type Command, InvalidArgumentError, Option } from "commander";
import { StoppedError } from "../errors.js";
import { addJsonOption, numberBetween, wholeNumber } from "../options.js";
import { checkFlags, kindNames, type PrepareFlags } from "../preparing/flags.js";
import { prepare } from "../preparing/prepare.js";
import type { Context } from "../program.js";
import { showPreparation } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";

const symbolNames: Readonly<Record<string, string>> = { "tokenizer.json": "tokens", words: "words" };

function show(terminal: Terminal, { path, manifest, vocabSize }: TokenStore): void {
  const { name, tokenizer, source, splits } = manifest;
  const lines = Object.entries(splits).map(([split, { tokens, shards, documents }]) => {
    const more = [
      ...(documents === undefined ? [] : [`${count(documents.count)} documents`]),
      ...(shards === undefined || shards.length < 2 ? [] : [`${shards.length} files`]),
    ];
    return `  ${split.padEnd(6)} ${count(tokens)} tokens${more.length === 0 ? "" : ` (${more.join(", ")})`}`;
  });
  terminal.result(
    { store: path, name, vocabSize, tokenizer: tokenizer.kind, source, splits },
    [`${path}: ${name}, ${count(vocabSize)} ${symbolNames[tokenizer.kind] ?? "symbols"}`, ...lines].join("\n"),
  );
}

async function run(terminal: Terminal, what: string, flags: PrepareFlags): Promise<void> {
  const wanted = checkFlags(what, flags);
  using stop = stopSignals({
    onStop: () => terminal.note("stopping: what has been done is brought to the disk; once more to stop at once"),
  });
  const progress = showPreparation(terminal);
  try {
    show(terminal, await prepare(wanted, { flags, signal: stop.signal, onProgress: progress.show }));
  } catch (error) {
    if (stop.received === undefined || stop.exitCode === undefined) throw error;
    throw new StoppedError(
      `stopped by ${stop.received}; the store is not there yet. The same command goes on from where it was.`,
      stop.exitCode,
    );
  } finally {
    progress.end();
  }
}

/** Reads `1,2,5`. */
function taskList(text: string): number[] {
  const tasks = text.split(",").map((part) => Number(part.replace(/^qa/, "")));
  if (!tasks.every((task) => Number.isInteger(task) && task >= 1 && task <= 20)) {
    throw new InvalidArgumentError("It must be numbers of tasks from 1 to 20, such as 1,2,5.");
  }
  return [...new Set(tasks)].sort((a, b) => a - b);
}

const names = (text: string): string[] =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");

export function registerData(program: Command, context: Context): void {
  const data = program.command("data").description("Prepare data.");
  const command = data
    .command("prepare")
    .argument("<what>", `${kindNames.join(", ")}, hf:OWNER/NAME, or a path`)
    .summary("make a token store")
    .description(
      "Makes a token store. A data set by its name is taken from --from, from the folder DIFFMAMBA_DATA, or fetched from its public\n" +
        "address; anything else is refused under its name. A path, or text with --from, is a text file, a .jsonl or .parquet file, or a\n" +
        "folder of them; .gz, .xz and .zip are unpacked on the way. hf:OWNER/NAME is a data set on the Hugging Face hub. Ctrl-C keeps\n" +
        "what has been done: the same command goes on from there.",
    )
    .option("--from <path>", "a local copy, or its name in the folder DIFFMAMBA_DATA")
    .requiredOption("--out <folder>", "where the store goes")
    .option("--tokenizer <name>", "characters (of the text), text8, bytes, or a folder or file with a tokenizer")
    .addOption(new Option("--newline <what>", "enwik8 and bytes: newline bytes stay or go").choices(["keep", "drop"]))
    .addOption(
      new Option("--level <level>", "wikitext-103: words (default), or raw for a tokenizer").choices(["words", "raw"]),
    )
    .addOption(
      new Option("--eos <which>", "wikitext-103: one token a line's end, or two as in the paper's code").choices([
        "standard",
        "doubled",
      ]),
    )
    .addOption(new Option("--variant <folder>", "babi: which of its folders (default: en)").choices(babiVariants))
    .option("--tasks <list>", "babi: numbers of tasks, such as 1,2,5", taskList)
    .option("--field <name>", "the field or column with the text (default: text)")
    .option("--config <name>", "hf: the data set's configuration")
    .option("--revision <name>", "hf: a branch, tag or commit")
    .option(
      "--splits <list>",
      "hf: its splits, such as train,valid (default: train, of which shares are held out)",
      names,
    )
    .option("--valid <share>", "share of the valid split (default: 0.05)", numberBetween(0, 0.99))
    .option("--test <share>", "share of the test split (default: 0.05)", numberBetween(0, 0.99))
    .option("--split-seed <n>", "which documents are held out (default: 0)", wholeNumber(0))
    .option("--strip", "a text or bytes: leave out white space at both ends of each split")
    .option("--name <name>", "the data's name in the store")
    .option(
      "--threads <n>",
      "threads that encode; the store is the same with any number (default: the processors, at most 4)",
      wholeNumber(1, 256),
    )
    .option("--shard-tokens <n>", "tokens of a file (default: 134217728)", wholeNumber(1))
    .option("--downloads <folder>", "where downloads are kept (default: ~/.cache/diffmamba/data)")
    .option("--overwrite", "replace a store that is there");
  addJsonOption(command).action(context.run(run));
}
