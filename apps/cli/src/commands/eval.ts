// Layer: apps/cli, commands. `eval`: how well a checkpoint predicts a text.
import { type TokenSource, TokenStore } from "@diffmamba/datasets";
import { type Batching, type EvaluationResult, evaluate } from "@diffmamba/eval";
import { nodeFiles } from "@diffmamba/files/node";
import type { Tokenizer } from "@diffmamba/tokenizer";
import { type StopSignals, stopSignals } from "@diffmamba/train/node";
import { type Command, Option } from "commander";
import { chooseDevice, type DeviceFlags, openDevice } from "../backends.js";
import { type Checkpoint, type CheckpointFlags, openCheckpoint, plannedNumber } from "../checkpoint.js";
import { findData, isStore, withFileTokens } from "../data.js";
import { CommandError, messageOf, StoppedError, UsageError } from "../errors.js";
import { addBackendOptions, addJsonOption, wholeNumber } from "../options.js";
import type { Context } from "../program.js";
import { showEvaluation, showPreparation } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";

interface EvalFlags extends CheckpointFlags, DeviceFlags {
  readonly data: string;
  readonly split?: string;
  readonly length?: number;
  readonly batchSize?: number;
  readonly batching: Batching;
  readonly maxTokens?: number;
}

/** Tokens of a window where neither a flag nor the checkpoint says how long it was trained on. */
const usualLength = 2048;

/** The tokens to score: a split of a store, or a whole file. */
async function withTokens<T>(
  terminal: Terminal,
  { data, split }: EvalFlags,
  tokenizer: Tokenizer,
  signal: AbortSignal,
  use: (source: TokenSource) => Promise<T>,
): Promise<T> {
  const files = nodeFiles();
  const source = findData(data);
  if (!isStore(source)) {
    if (split !== undefined)
      throw new UsageError(`--split ${split}: ${source} is a file, which is scored whole; only stores have splits.`);
    const progress = showPreparation(terminal);
    const context = { files, signal, onProgress: progress.show };
    return withFileTokens(source, tokenizer, context, (store) => {
      progress.end();
      return use(store.split("train"));
    });
  }
  const store = await TokenStore.open(files, source);
  const own = JSON.stringify(await store.loadTokenizer());
  if (own !== JSON.stringify(tokenizer)) {
    throw new CommandError(
      `${source}: the store was made with another tokenizer than the model's. Prepare the data with the model's.`,
    );
  }
  const { splitNames } = store;
  return use(store.split(split ?? (splitNames.includes("test") ? "test" : (splitNames.at(-1) as string))));
}

async function score(
  terminal: Terminal,
  { model, tokenizer, plan }: Checkpoint,
  flags: EvalFlags,
  signal: AbortSignal,
) {
  const { batching, maxTokens } = flags;
  const length = flags.length ?? plannedNumber(plan, "train", "length") ?? usualLength;
  const batchSize = flags.batchSize ?? plannedNumber(plan, "train", "batchSize") ?? 1;
  return withTokens(terminal, flags, tokenizer, signal, async (source) => {
    const progress = showEvaluation(terminal);
    try {
      const options = { length, batchSize, batching, text: tokenizer, signal, onProgress: progress.show };
      const result = await evaluate(model, source, { ...options, ...(maxTokens !== undefined && { maxTokens }) });
      return { result, length, batchSize };
    } finally {
      progress.end();
    }
  });
}

/** The error of a stop, where one was asked for; else the error as it is. */
function stopped(error: unknown, stop: StopSignals): unknown {
  const isStop = stop.exitCode !== undefined && error === stop.signal.reason;
  return isStop ? new StoppedError(`${messageOf(error)}; nothing was scored`, stop.exitCode) : error;
}

function table({ tokens, nll, ppl, bpb, bpc, pplBatchMean, bpbBatchMean, lossByPosition }: EvaluationResult): string {
  const at = (share: number) => Math.min(lossByPosition.length - 1, Math.floor(share * lossByPosition.length));
  const positions = [...new Set([0, 0.25, 0.5, 0.75, 1].map(at))];
  return [
    `tokens               ${count(tokens)}`,
    `loss                 ${nll.toFixed(4)} nats a token`,
    `perplexity           ${ppl.toFixed(4)}`,
    ...(bpb === undefined ? [] : [`bits per byte        ${bpb.toFixed(4)}`]),
    ...(bpc === undefined ? [] : [`bits per character   ${bpc.toFixed(4)}`]),
    `mean over batches    perplexity ${pplBatchMean.toFixed(4)}, ${bpbBatchMean.toFixed(4)} bits a token`,
    `loss by position     ${positions.map((position) => `${position}: ${lossByPosition[position].toFixed(3)}`).join("   ")}`,
  ].join("\n");
}

async function run(terminal: Terminal, flags: EvalFlags): Promise<void> {
  using stop = stopSignals();
  await using device = await openDevice(chooseDevice(flags, terminal.note));
  const checkpoint = await openCheckpoint(flags, device);
  using _model = checkpoint.model;
  const { result, length, batchSize } = await score(terminal, checkpoint, flags, stop.signal).catch((error) => {
    throw stopped(error, stop);
  });
  const { lossByPosition, ...scores } = result;
  terminal.result(
    {
      checkpoint: checkpoint.folder,
      data: flags.data,
      ...scores,
      length,
      batchSize,
      batching: flags.batching,
      lossByPosition,
    },
    table(result),
  );
}

export function registerEval(program: Command, context: Context): void {
  const command = program
    .command("eval")
    .summary("perplexity, bits per byte and loss by position of a checkpoint")
    .description(
      "Scores a text in non-overlapping windows of the training length, each from a zero state; N tokens give N - 1 scores. A file\n" +
        "is scored whole, a token store by its test split.",
    )
    .requiredOption("--checkpoint <folder>", "a run, one of its step-N folders, or any Hugging Face model folder")
    .requiredOption("--data <data>", "a file, a token store, or a name in the folder DIFFMAMBA_DATA")
    .option("--split <name>", "which split of a store (default: test, or the last one)")
    .option("--length <n>", "tokens of a window (default: as trained)", wholeNumber(1))
    .option("--batch-size <n>", "windows at once (default: as trained)", wholeNumber(1))
    .addOption(
      new Option("--batching <how>", "windows side by side, or the paper's contiguous rows")
        .choices(["windows", "rows"])
        .default("windows"),
    )
    .option("--max-tokens <n>", "score about so many tokens, in windows spread over the text", wholeNumber(1))
    .option("--tokenizer <path>", "a folder or file with the tokenizer (default: the checkpoint's)");
  addBackendOptions(command);
  addJsonOption(command).action(context.run(run));
}
