// Layer: tokenizer. What a worker of a pool (node.ts) does: counts the words of a text, or encodes texts with the pool's tokenizer.
// Knows no text and no file.
import Tinypool from "tinypool";
import { countPieceWords, type WordCounts } from "./bpe.js";
import { type Encoded, encodeTexts } from "./encode-texts.js";
import { tokenizerFromJSON } from "./load.js";
import type { Tokenizer } from "./tokenizer.js";

export type Task =
  | { readonly kind: "count"; readonly text: string }
  | { readonly kind: "encode"; readonly texts: readonly string[] };

/** What a pool hands to each of its workers once. */
export interface PoolData {
  readonly tokenizer?: object;
}

let tokenizer: Tokenizer | undefined;

export default function work(task: Task): WordCounts | Encoded {
  if (task.kind === "count") return countPieceWords(task.text);
  tokenizer ??= tokenizerFromJSON((Tinypool.workerData as PoolData).tokenizer, "the pool's tokenizer");
  return encodeTexts(tokenizer, task.texts);
}
