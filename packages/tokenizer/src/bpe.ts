// Layer: tokenizer. Trains a byte-level BPE: words are counted in pieces of the text, perhaps by several workers at once, then merges are
// learned from the counts. Knows no file and no thread.

import { learnMerges } from "./bpe-merges.js";
import { byteLevelJson, wordPattern } from "./byte-level.js";
import { HuggingFaceTokenizer } from "./hugging-face.js";
import { copyOf, spaceBefore } from "./word-cache.js";

/** Words with how often each is there. */
export interface WordCounts {
  readonly words: readonly string[];
  readonly counts: Float64Array;
}

/** What counts pieces of text. They may be counted at the same time; each answer is for its own piece. */
export interface WordCounter {
  /** How many pieces are counted at once. */
  readonly size: number;
  count(text: string): Promise<WordCounts>;
}

export interface TrainProgress {
  /** "count" reads the text, "merge" learns. */
  readonly phase: "count" | "merge";
  /** Characters (UTF-16 units) counted so far; or merges learned, and how many are wanted. */
  readonly done: number;
  readonly total?: number;
}

export interface TrainOptions {
  /** Tokens altogether: special ones, 256 bytes and merges. */
  readonly vocabSize: number;
  /** Take the first ids; `["<|endoftext|>"]` unless told. */
  readonly specialTokens?: readonly string[];
  /** Composes characters (NFC) first. */
  readonly nfc?: boolean;
  /** A pair that is there less often is not merged; 2 unless told. */
  readonly minCount?: number;
  /**
   * Different words kept at most, which bounds memory (about 150 bytes each); 2,000,000 unless told. Where there are more, the rarest
   * are left out as they come.
   */
  readonly maxWords?: number;
  /** What counts; in this thread unless told. `wordCounter` of `@diffmamba/tokenizer/node` takes several. */
  readonly counter?: WordCounter;
  readonly onProgress?: (progress: TrainProgress) => void;
  readonly signal?: AbortSignal;
}

/** UTF-16 units of a piece that is counted at once. */
const pieceUnits = 1 << 22;

/** Words of a text as the pattern cuts it, counted. */
export function countPieceWords(text: string): WordCounts {
  const found = new Map<string, number>();
  const pattern = new RegExp(wordPattern, "gu");
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const count = found.get(match[0]);
    if (count === undefined) found.set(copyOf(match[0]), 1);
    else found.set(match[0], count + 1);
  }
  return { words: [...found.keys()], counts: Float64Array.from(found.values()) };
}

const serialCounter: WordCounter = { size: 1, count: async (text) => countPieceWords(text) };

/** Counts of a whole text, no more of them than `limit`. */
class Totals {
  readonly counts = new Map<string, number>();

  constructor(readonly limit: number) {}

  add({ words, counts }: WordCounts): void {
    for (let i = 0; i < words.length; i++) {
      const word = words[i] as string;
      this.counts.set(word, (this.counts.get(word) ?? 0) + (counts[i] as number));
    }
    // Dropped down to three quarters, so that it is not done for every piece.
    for (let rare = 1; this.counts.size > this.limit; rare *= 2) this.#drop(rare);
  }

  #drop(rare: number): void {
    for (const [word, count] of this.counts) {
      if (count <= rare) this.counts.delete(word);
      if (this.counts.size <= 0.75 * this.limit) return;
    }
  }
}

/** A cut of a text without white space, which costs a word; never inside a character. */
const anywhere = (text: string, at: number): number => ((text.charCodeAt(at) & 0xfc00) === 0xdc00 ? at - 1 : at);

/** Pieces of a text that comes in parts, cut where a word begins. */
async function* piecesOf(parts: AsyncIterable<string> | Iterable<string>, nfc: boolean): AsyncGenerator<string> {
  let rest = "";
  const composed = (text: string) => (nfc ? text.normalize("NFC") : text);
  for await (const part of parts) {
    rest += part;
    // Where it is cut depends on the text alone, not on its parts.
    while (rest.length >= pieceUnits) {
      const cut = spaceBefore(rest, pieceUnits) || anywhere(rest, pieceUnits);
      yield composed(rest.slice(0, cut));
      rest = rest.slice(cut);
    }
  }
  if (rest !== "") yield composed(rest);
}

/**
 * Trains a byte-level BPE on a text that may be larger than memory. The same text and options give the same tokenizer, with any number
 * of workers, and where `maxWords` is not reached the same merges as the Hugging Face library's `BpeTrainer`.
 * @param text its parts, in order
 * @throws RangeError where `vocabSize` does not hold the 256 bytes and the special tokens; what `signal` was aborted with
 */
export async function trainBpe(
  text: AsyncIterable<string> | Iterable<string>,
  options: TrainOptions,
): Promise<HuggingFaceTokenizer> {
  const { vocabSize, nfc = false, minCount = 2, maxWords = 2_000_000, counter = serialCounter } = options;
  const specialTokens = options.specialTokens ?? ["<|endoftext|>"];
  const least = 256 + specialTokens.length;
  if (!Number.isSafeInteger(vocabSize) || vocabSize < least) {
    throw new RangeError(`vocabSize is ${vocabSize}; it wants at least ${least}: 256 bytes and the special tokens`);
  }
  if (!(maxWords >= 1000)) throw new RangeError(`maxWords is ${maxWords}; it wants at least 1000`);
  const totals = new Totals(maxWords);
  let done = 0;
  // Answers are added in the order of their pieces, so that what is left out does not depend on the workers.
  const waiting: { readonly units: number; readonly counts: Promise<WordCounts> }[] = [];
  const settleOne = async () => {
    const first = waiting.shift();
    if (first === undefined) return;
    totals.add(await first.counts);
    done += first.units;
    options.onProgress?.({ phase: "count", done });
  };
  try {
    for await (const piece of piecesOf(text, nfc)) {
      options.signal?.throwIfAborted();
      const counts = counter.count(piece);
      counts.catch(() => undefined); // looked at in its turn
      waiting.push({ units: piece.length, counts });
      if (waiting.length > counter.size) await settleOne();
    }
    while (waiting.length > 0) await settleOne();
  } finally {
    await Promise.allSettled(waiting.map(({ counts }) => counts));
  }
  const onMerge = async (merges: number, total: number) => {
    options.onProgress?.({ phase: "merge", done: merges, total });
    await new Promise((resolve) => setTimeout(resolve)); // signals and pages get their turn
    options.signal?.throwIfAborted();
  };
  const { vocab, merges } = await learnMerges(totals.counts, { vocabSize, specialTokens, minCount, onMerge });
  return new HuggingFaceTokenizer(byteLevelJson(vocab, merges, { specialTokens, nfc }), undefined, "trained tokenizer");
}
