// Layer: tokenizer. Learns the merges of a byte-level BPE from counted words (Sennrich et al. 2016, algorithm 1): the pair that is there
// most often becomes a token, again and again. Counts are kept up to date pair by pair. Knows no text and no file.
import { byteCharacters, type Merge, toByteCharacters } from "./byte-level.js";

/** A heap with the largest count on top; of equal counts the pair with the smaller ids, as the Hugging Face library has it. */
class PairHeap {
  readonly #counts: number[] = [];
  readonly #keys: number[] = [];

  get size(): number {
    return this.#keys.length;
  }

  #before(count: number, key: number, at: number): boolean {
    const other = this.#counts[at] as number;
    return count > other || (count === other && key < (this.#keys[at] as number));
  }

  push(count: number, key: number): void {
    let at = this.#keys.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(count, key, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#counts[at] = count;
    this.#keys[at] = key;
  }

  pop(): { readonly count: number; readonly key: number } {
    const top = { count: this.#counts[0] as number, key: this.#keys[0] as number };
    const count = this.#counts.pop() as number;
    const key = this.#keys.pop() as number;
    const size = this.#keys.length;
    if (size === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      const right = child + 1;
      if (right < size && this.#before(this.#counts[right] as number, this.#keys[right] as number, child))
        child = right;
      if (this.#before(count, key, child)) break;
      this.#move(child, at);
      at = child;
    }
    this.#counts[at] = count;
    this.#keys[at] = key;
    return top;
  }

  #move(from: number, to: number): void {
    this.#counts[to] = this.#counts[from] as number;
    this.#keys[to] = this.#keys[from] as number;
  }
}

export interface LearnOptions {
  /** Tokens altogether: special ones, 256 bytes and merges. Fewer come where the words give no more. */
  readonly vocabSize: number;
  /** Take the first ids. */
  readonly specialTokens: readonly string[];
  /** A pair that is there less often is not merged. */
  readonly minCount: number;
  /** Called now and then; may wait, and may throw to stop. */
  readonly onMerge?: (merges: number, of: number) => void | Promise<void>;
}

export interface Learned {
  readonly vocab: Record<string, number>;
  readonly merges: readonly Merge[];
}

/** Merges between two calls of `onMerge`. */
const reportEvery = 250;

/**
 * Learns a vocabulary. The result depends on the counts alone, not on the order of the words.
 * @param words words with how often each is there
 */
export async function learnMerges(words: ReadonlyMap<string, number>, options: LearnOptions): Promise<Learned> {
  const { vocabSize, specialTokens, minCount } = options;
  // Ids as the Hugging Face library gives them: special tokens, then bytes in the order of their characters, then merges.
  const tokens = [...specialTokens, ...[...byteCharacters].sort()];
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const corpus = new Corpus(words, idOf, Math.max(vocabSize, tokens.length));
  const merges: Merge[] = [];
  const wanted = vocabSize - tokens.length;
  while (merges.length < wanted) {
    const best = corpus.best();
    if (best === undefined || best.count < Math.max(1, minCount)) break;
    const pair: Merge = [tokens[best.left] as string, tokens[best.right] as string];
    const merged = pair[0] + pair[1];
    let id = idOf.get(merged);
    if (id === undefined) {
      id = tokens.length;
      tokens.push(merged);
      idOf.set(merged, id);
    }
    merges.push(pair);
    corpus.merge(best.left, best.right, id);
    if (merges.length % reportEvery === 0) await options.onMerge?.(merges.length, wanted);
  }
  return { vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges };
}

/** Counted words as rows of ids, with the count of every pair of neighbours and the words that hold it. */
class Corpus {
  /** Ids of all words behind one another; a merge moves the rest of a word up. */
  readonly #ids: Int32Array;
  readonly #starts: Int32Array;
  readonly #lengths: Int32Array;
  readonly #weights: Float64Array;
  readonly #counts = new Map<number, number>();
  readonly #places = new Map<number, number[]>();
  readonly #heap = new PairHeap();

  constructor(
    words: ReadonlyMap<string, number>,
    idOf: ReadonlyMap<string, number>,
    /** A pair's key is left * base + right. */
    readonly base: number,
  ) {
    let total = 0;
    const rows: string[] = [];
    const weights: number[] = [];
    for (const [word, count] of words) {
      const row = toByteCharacters(word);
      if (row.length < 2) continue;
      rows.push(row);
      weights.push(count);
      total += row.length;
    }
    this.#ids = new Int32Array(total);
    this.#starts = new Int32Array(rows.length);
    this.#lengths = new Int32Array(rows.length);
    this.#weights = Float64Array.from(weights);
    let at = 0;
    rows.forEach((row, word) => {
      this.#starts[word] = at;
      this.#lengths[word] = row.length;
      for (const character of row) this.#ids[at++] = idOf.get(character) as number;
      for (let i = at - row.length; i + 1 < at; i++) {
        this.#add(this.#ids[i] as number, this.#ids[i + 1] as number, this.#weights[word] as number, word);
      }
    });
    for (const [key, count] of this.#counts) this.#heap.push(count, key);
  }

  #add(left: number, right: number, count: number, word: number): void {
    const key = left * this.base + right;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + count);
    const places = this.#places.get(key);
    if (places === undefined) this.#places.set(key, [word]);
    else if (places[places.length - 1] !== word) places.push(word);
  }

  #take(left: number, right: number, count: number): void {
    const key = left * this.base + right;
    const rest = (this.#counts.get(key) ?? 0) - count;
    this.#counts.set(key, rest);
  }

  /** The pair that is there most often. What the heap says of a pair may be old: then it goes back in with its count of now. */
  best(): { readonly left: number; readonly right: number; readonly count: number } | undefined {
    while (this.#heap.size > 0) {
      const { count, key } = this.#heap.pop();
      const now = this.#counts.get(key) ?? 0;
      if (now === count && count > 0) return { left: Math.floor(key / this.base), right: key % this.base, count };
      if (now > 0 && now < count) this.#heap.push(now, key);
    }
    return undefined;
  }

  merge(left: number, right: number, id: number): void {
    const key = left * this.base + right;
    const places = this.#places.get(key) ?? [];
    this.#places.delete(key);
    const fresh = new Set<number>();
    for (const word of places) this.#mergeIn(word, left, right, id, fresh);
    this.#counts.delete(key);
    for (const pair of fresh) {
      const count = this.#counts.get(pair) ?? 0;
      if (count > 0) this.#heap.push(count, pair);
    }
  }

  #mergeIn(word: number, left: number, right: number, id: number, fresh: Set<number>): void {
    const ids = this.#ids;
    const weight = this.#weights[word] as number;
    const start = this.#starts[word] as number;
    const end = start + (this.#lengths[word] as number);
    let to = start;
    for (let from = start; from < end; to++) {
      const here = ids[from] as number;
      if (here !== left || from + 1 === end || ids[from + 1] !== right) {
        ids[to] = here;
        from++;
        continue;
      }
      if (to > start) {
        const before = ids[to - 1] as number;
        this.#take(before, left, weight);
        this.#add(before, id, weight, word);
        fresh.add(before * this.base + id);
      }
      from += 2;
      if (from < end) {
        const after = ids[from] as number;
        this.#take(right, after, weight);
        this.#add(id, after, weight, word);
        fresh.add(id * this.base + after);
      }
      ids[to] = id;
    }
    this.#lengths[word] = to - start;
  }
}
