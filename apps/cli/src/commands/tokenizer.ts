// Layer: apps/cli, commands. `tokenizer train`: a byte-level BPE from text; `tokenizer show`: what a tokenizer is and what it makes of a text.
// Knows tokenizers and sources of text. Knows no model.
import path from "node:path";
import { type TextSource, textSource } from "@diffmamba/datasets";
import { nodeFiles } from "@diffmamba/files/node";
import { loadTokenizer, paddedVocabSize, saveTokenizer, type TrainProgress, trainBpe } from "@diffmamba/tokenizer";
import { wordCounter } from "@diffmamba/tokenizer/node";
import { stopSignals } from "@diffmamba/train/node";
import type { Command } from "commander";
import { findData, tokenizerPath } from "../data.js";
import { StoppedError } from "../errors.js";
import { addJsonOption, gather, wholeNumber } from "../options.js";
import type { Context } from "../program.js";
import { progressBar } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";

interface TrainFlags {
  readonly from: string;
  readonly out: string;
  readonly vocabSize: number;
  readonly special?: readonly string[];
  readonly nfc?: boolean;
  readonly minCount?: number;
  readonly field?: string;
  readonly threads?: number;
}

async function* textsOf(source: TextSource, signal: AbortSignal): AsyncGenerator<string> {
  for await (const { text, ends } of source.parts()) {
    signal.throwIfAborted();
    if (text !== "") yield text;
    if (ends) yield "\n"; // documents are no words of each other
  }
}

async function trainTokenizer(terminal: Terminal, flags: TrainFlags): Promise<void> {
  const { out, vocabSize, special, nfc, minCount, field, threads } = flags;
  using stop = stopSignals();
  const files = nodeFiles();
  const found = findData(flags.from);
  const source = await textSource(files, found, field === undefined ? {} : { field });
  const bar = progressBar(terminal, "training", 2000);
  const show = ({ phase, done, total }: TrainProgress) =>
    phase === "count"
      ? bar.update(0, 1, `${count(Math.round(done / 1e6))} million characters counted`)
      : bar.update(done, total ?? 1, `${count(done)}/${count(total ?? 0)} merges`);
  const counter = wordCounter(threads === undefined ? {} : { threads });
  try {
    const tokenizer = await trainBpe(textsOf(source, stop.signal), {
      vocabSize,
      counter,
      signal: stop.signal,
      onProgress: show,
      ...(special && { specialTokens: special }),
      ...(nfc && { nfc }),
      ...(minCount !== undefined && { minCount }),
    });
    await files.makeDirectory(out);
    await saveTokenizer(files, out, tokenizer);
    const fewer =
      tokenizer.vocabSize < vocabSize ? `; the text gives no more than these, of ${count(vocabSize)} wanted` : "";
    terminal.result(
      {
        tokenizer: path.join(out, "tokenizer.json"),
        vocabSize: tokenizer.vocabSize,
        specialTokens: tokenizer.specialTokens,
      },
      `${path.join(out, "tokenizer.json")}: ${count(tokenizer.vocabSize)} tokens${fewer}`,
    );
  } catch (error) {
    if (stop.received === undefined || stop.exitCode === undefined) throw error;
    throw new StoppedError(`stopped by ${stop.received}; nothing was written.`, stop.exitCode);
  } finally {
    bar.end();
    await counter[Symbol.asyncDispose]();
  }
}

async function showTokenizer(
  terminal: Terminal,
  name: string,
  text: string | undefined,
  flags: { multiple?: number },
): Promise<void> {
  const tokenizer = await loadTokenizer(nodeFiles(), tokenizerPath(name));
  const { kind, vocabSize, specialTokens } = tokenizer;
  const padded = flags.multiple === undefined ? undefined : paddedVocabSize(vocabSize, flags.multiple);
  const ids = text === undefined ? undefined : [...tokenizer.encode(text)];
  const tokens = ids?.map((id) => tokenizer.decode([id]));
  const special = Object.entries(specialTokens).map(([role, id]) => `${role} ${id}`);
  terminal.result(
    { kind, vocabSize, specialTokens, ...(padded !== undefined && { padded }), ...(ids && { ids, tokens }) },
    [
      `${name}: ${kind}, ${count(vocabSize)} tokens${special.length === 0 ? "" : `; ${special.join(", ")}`}`,
      ...(padded === undefined ? [] : [`padded to a multiple of ${flags.multiple}: ${count(padded)}`]),
      ...(ids ? [ids.map((id, i) => `${id} ${JSON.stringify(tokens?.[i])}`).join("\n")] : []),
    ].join("\n"),
  );
}

export function registerTokenizer(program: Command, context: Context): void {
  const group = program.command("tokenizer").description("Train and look at tokenizers.");
  const train = group
    .command("train")
    .summary("train a byte-level BPE")
    .description(
      "Learns the merges of a byte-level BPE (as GPT-2's and GPT-NeoX's) from a text file, a .jsonl or .parquet file, or a folder, and\n" +
        "writes a tokenizer.json that the Hugging Face libraries read.",
    )
    .requiredOption("--from <path>", "the text, or its name in the folder DIFFMAMBA_DATA")
    .requiredOption("--out <folder>", "where tokenizer.json goes")
    .requiredOption("--vocab-size <n>", "tokens altogether: special ones, 256 bytes and merges", wholeNumber(257))
    .option("--special <token>", "a token of its own, may be given more than once (default: <|endoftext|>)", gather)
    .option("--nfc", "compose characters (NFC) first, as GPT-NeoX does")
    .option("--min-count <n>", "pairs that are there less often are not merged (default: 2)", wholeNumber(1))
    .option("--field <name>", "the field or column with the text (default: text)")
    .option(
      "--threads <n>",
      "threads that count; the result is the same with any number (default: the processors, at most 4)",
      wholeNumber(1, 256),
    );
  addJsonOption(train).action(context.run(trainTokenizer));
  const show = group
    .command("show")
    .summary("what a tokenizer is, and what it makes of a text")
    .argument("<tokenizer>", "a folder or file, or a name below tokenizers/ in the folder DIFFMAMBA_DATA")
    .argument("[text]", "a text to encode")
    .option("--multiple <n>", "also the size of its vocabulary padded to a multiple of this", wholeNumber(1));
  addJsonOption(show).action(context.run(showTokenizer));
}
