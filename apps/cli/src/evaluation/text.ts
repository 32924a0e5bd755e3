// Layer: apps/cli, evaluation. How well a checkpoint predicts a text: whole windows, or position by position with the state carried.
// Knows the eval package, stores and files. Knows no flag parser.
import { type TokenSplit, TokenStore } from "@diffmamba/datasets";
import {
  type Batching,
  carried,
  type EvaluationResult,
  evaluate,
  longDocuments,
  lossByPosition,
  type PositionResult,
} from "@diffmamba/eval";
import { nodeFiles } from "@diffmamba/files/node";
import type { Tokenizer } from "@diffmamba/tokenizer";
import { type Checkpoint, plannedNumber } from "../checkpoint.js";
import { findData, isStore, withFileTokens } from "../data.js";
import { CommandError, UsageError } from "../errors.js";
import { showEvaluation, showPositions, showPreparation } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";

export interface TextFlags {
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
  { data, split }: TextFlags,
  tokenizer: Tokenizer,
  signal: AbortSignal,
  use: (source: TokenSplit) => Promise<T>,
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

/** Tokens of a window, and rows at once, where no flag says them. */
const sizesOf = ({ plan }: Checkpoint, flags: TextFlags) => ({
  length: flags.length ?? plannedNumber(plan, "train", "length") ?? usualLength,
  batchSize: flags.batchSize ?? plannedNumber(plan, "train", "batchSize") ?? 1,
});

export async function scoreText(terminal: Terminal, checkpoint: Checkpoint, flags: TextFlags, signal: AbortSignal) {
  const { model, tokenizer } = checkpoint;
  const { batching, maxTokens } = flags;
  const { length, batchSize } = sizesOf(checkpoint, flags);
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

export interface PositionFlags extends TextFlags {
  /** Positions of a document. */
  readonly byPosition: number;
  readonly documents?: number;
}

/** The loss at each position of documents; `window` tokens are read at a time. */
export async function scorePositions(
  terminal: Terminal,
  checkpoint: Checkpoint,
  flags: PositionFlags,
  signal: AbortSignal,
): Promise<PositionResult & { readonly window: number; readonly batchSize: number; readonly trained: number | null }> {
  const { model, tokenizer, plan } = checkpoint;
  const { byPosition: length, documents: limit } = flags;
  const { batchSize, length: longest } = sizesOf(checkpoint, flags);
  const window = Math.min(longest, length);
  return withTokens(terminal, flags, tokenizer, signal, async (source) => {
    const many = Math.min(limit ?? Number.POSITIVE_INFINITY, Math.max(1, Math.floor(source.length / (length + 1))));
    const progress = showPositions(terminal, many * length);
    const { training } = model;
    model.train(false);
    try {
      const documents = longDocuments(source, { length, ...(limit !== undefined && { limit }) });
      const options = { window, batchSize, signal, onProgress: progress.show };
      const result = await lossByPosition(carried(model), documents, options);
      return { ...result, window, batchSize, trained: plannedNumber(plan, "train", "length") ?? null };
    } finally {
      progress.end();
      model.train(training);
    }
  });
}

/** Scores as lines. */
export function textTable(result: EvaluationResult): string {
  const { tokens, nll, ppl, bpb, bpc, pplBatchMean, bpbBatchMean, lossByPosition: losses } = result;
  return [
    `tokens               ${count(tokens)}`,
    `loss                 ${nll.toFixed(4)} nats a token`,
    `perplexity           ${ppl.toFixed(4)}`,
    ...(bpb === undefined ? [] : [`bits per byte        ${bpb.toFixed(4)}`]),
    ...(bpc === undefined ? [] : [`bits per character   ${bpc.toFixed(4)}`]),
    `mean over batches    perplexity ${pplBatchMean.toFixed(4)}, ${bpbBatchMean.toFixed(4)} bits a token`,
    `loss by position     ${positionList(losses)}`,
  ].join("\n");
}

/** Losses at the beginning, the end and between. */
export function positionList(losses: readonly number[]): string {
  const at = (share: number) => Math.min(losses.length - 1, Math.floor(share * losses.length));
  const positions = [...new Set([0, 0.25, 0.5, 0.75, 1].map(at))];
  return positions.map((position) => `${position}: ${losses[position].toFixed(3)}`).join("   ");
}
