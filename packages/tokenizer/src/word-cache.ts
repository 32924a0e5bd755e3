// Layer: tokenizer. Byte-level BPE with a cache of words in front: a text is cut into words as the library does, and each word is
// merged by the library once. Knows no tokenizer.json: it gets what it needs of one.
import { spaceClass, toByteCharacters, wordPattern } from "./byte-level.js";

/** Words of one generation of the cache: two are kept, so that memory is bounded and what is in use stays. */
const generationWords = 1 << 17;
/** Longer words are merged anew each time. */
const longestWord = 64;

export interface WordCacheOptions {
  /** Tokens that a text is cut at before it is composed, and after: their texts and ids. */
  readonly before: ReadonlyMap<string, number>;
  readonly after: ReadonlyMap<string, number>;
  readonly nfc: boolean;
  /** The ids of one word, given in the characters that stand for its bytes. */
  merge(word: string): readonly number[];
}

/** Ids that are collected without knowing how many there will be. */
class Ids {
  #ids: Int32Array;
  #count = 0;

  constructor(expected: number) {
    this.#ids = new Int32Array(Math.max(16, expected));
  }

  push(id: number): void {
    if (this.#count === this.#ids.length) this.#grow(1);
    this.#ids[this.#count++] = id;
  }

  append(ids: readonly number[]): void {
    if (this.#count + ids.length > this.#ids.length) this.#grow(ids.length);
    for (let i = 0; i < ids.length; i++) this.#ids[this.#count++] = ids[i] as number;
  }

  #grow(by: number): void {
    const larger = new Int32Array(2 * this.#ids.length + by);
    larger.set(this.#ids);
    this.#ids = larger;
  }

  whole(): Int32Array {
    return this.#ids.slice(0, this.#count);
  }
}

/** Cuts at any of these texts, the longest first where several begin; undefined where there are none. */
function cutterOf(texts: Iterable<string>): RegExp | undefined {
  const sorted = [...texts].sort((a, b) => b.length - a.length);
  if (sorted.length === 0) return undefined;
  return new RegExp(sorted.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|"), "g");
}

export class WordCache {
  readonly #options: WordCacheOptions;
  readonly #before: RegExp | undefined;
  readonly #after: RegExp | undefined;
  readonly #word = new RegExp(wordPattern, "gu");
  #young = new Map<string, readonly number[]>();
  #old = new Map<string, readonly number[]>();

  constructor(options: WordCacheOptions) {
    this.#options = options;
    this.#before = cutterOf(options.before.keys());
    this.#after = cutterOf(options.after.keys());
  }

  encode(text: string): Int32Array {
    const ids = new Ids(text.length >> 1);
    cut(text, this.#before, this.#options.before, ids, (section) => {
      const composed = this.#options.nfc ? section.normalize("NFC") : section;
      cut(composed, this.#after, this.#options.after, ids, (part) => this.#words(part, ids));
    });
    return ids.whole();
  }

  #words(text: string, ids: Ids): void {
    const pattern = this.#word;
    pattern.lastIndex = 0;
    for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) ids.append(this.#idsOf(match[0]));
  }

  #idsOf(word: string): readonly number[] {
    const young = this.#young.get(word);
    if (young !== undefined) return young;
    const ids = this.#old.get(word) ?? this.#options.merge(toByteCharacters(word));
    if (word.length > longestWord) return ids;
    if (this.#young.size >= generationWords) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    // A part of a text keeps the whole of it in memory: this is a copy.
    this.#young.set(copyOf(word), ids);
    return ids;
  }
}

/** A string of its own, where an engine would keep a view of a larger one, and that in memory. */
export function copyOf(word: string): string {
  return word.length < 13 ? word : [...word].join("");
}

/** Gives the parts between tokens to `use`, and the tokens' ids to `ids`, in order. */
function cut(
  text: string,
  pattern: RegExp | undefined,
  tokens: ReadonlyMap<string, number>,
  ids: Ids,
  use: (part: string) => void,
): void {
  let from = 0;
  if (pattern !== undefined) {
    pattern.lastIndex = 0;
    for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
      if (match.index > from) use(text.slice(from, match.index));
      ids.push(tokens.get(match[0]) as number);
      from = match.index + match[0].length;
    }
  }
  if (from < text.length) use(from === 0 ? text : text.slice(from));
}

const isSpace = new RegExp(`[${spaceClass}]`);

/** The last place before `end` where a run of white space starts behind something else; 0 where there is none. */
export function spaceBefore(text: string, end: number): number {
  for (let at = end - 1; at > 0; at--) {
    if (isSpace.test(text.charAt(at)) && !isSpace.test(text.charAt(at - 1))) return at;
  }
  return 0;
}
