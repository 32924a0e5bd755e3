// Layer: tokenizer. One token a word, from a vocabulary: WikiText-103's form, in which each line ends with a token of its own.
// Knows no file.
import { TextStream } from "./stream.js";
import {
  type DecodeOptions,
  type EncodeOptions,
  replacement,
  type SpecialTokens,
  type Tokenizer,
  TokenizerFormatError,
  type TokenStream,
  UnknownSymbolError,
  utf8Length,
} from "./tokenizer.js";
import { copyOf } from "./word-cache.js";

export interface WordOptions {
  /** The token of a line's end; `<eos>` unless told. It must be in the vocabulary. */
  readonly eos?: string;
  /** Stands for words that the vocabulary lacks; `<unk>` where the vocabulary has it. Without one they are errors. */
  readonly unknown?: string;
  /**
   * `doubled` writes the line's end twice behind every line that holds a word, as the script of arXiv 2507.06204's code does to
   * WikiText-103: the rows that it gets end in a newline already, and it adds another. `standard` unless told.
   */
  readonly lineEnds?: "standard" | "doubled";
}

/** What `WordTokenizer.toJSON` gives. */
export interface WordJSON extends WordOptions {
  readonly kind: "words";
  readonly version: 1;
  /** The words, in the order of their ids. */
  readonly words: readonly string[];
}

/** White space as Python's `split()` has it, by which the published counts of words are made; a newline ends a line. */
const inLine = "\\t\\v\\f\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const parts = new RegExp(`\\n|[^\\n${inLine}]+`, "g");
const endOfWord = new RegExp(`[\\n${inLine}]`);

export class WordTokenizer implements Tokenizer {
  readonly kind = "words";
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  readonly #words: readonly string[];
  readonly #ids: ReadonlyMap<string, number>;
  readonly #eos: number;
  readonly #doubled: boolean;
  readonly #options: WordOptions;

  /**
   * @param words the vocabulary, in the order of ids
   * @throws TokenizerFormatError for a word that is none or is there twice, or a special word that is not in it
   */
  constructor(words: Iterable<string>, options: WordOptions = {}) {
    this.#words = [...words];
    const ids = new Map<string, number>();
    for (const [id, word] of this.#words.entries()) {
      if (word === "" || endOfWord.test(word)) {
        throw new TokenizerFormatError("word tokenizer", `${JSON.stringify(word)} (id ${id}) is not a word`);
      }
      if (ids.has(word)) {
        throw new TokenizerFormatError("word tokenizer", `${JSON.stringify(word)} is in the vocabulary twice`);
      }
      ids.set(word, id);
    }
    const { eos = "<eos>", unknown = ids.has("<unk>") ? "<unk>" : undefined } = options;
    for (const special of [eos, ...(unknown === undefined ? [] : [unknown])]) {
      if (!ids.has(special)) {
        throw new TokenizerFormatError("word tokenizer", `the vocabulary lacks ${JSON.stringify(special)}`);
      }
    }
    this.#ids = ids;
    this.#options = options;
    this.#eos = ids.get(eos) as number;
    this.#doubled = options.lineEnds === "doubled";
    this.vocabSize = this.#words.length;
    const unknownId = unknown === undefined ? undefined : ids.get(unknown);
    this.specialTokens = { eos: this.#eos, ...(unknownId !== undefined && { unknown: unknownId }) };
  }

  /** A vocabulary file: a word a line, in the order of ids; a count behind it is left out. */
  static fromVocabulary(text: string, options: WordOptions = {}): WordTokenizer {
    const lines = text.split("\n").map((line) => line.match(parts)?.[0] ?? "");
    while (lines.at(-1) === "") lines.pop();
    return new WordTokenizer(lines, options);
  }

  /**
   * The vocabulary of counted words as the published preparations of WikiText-103 make it: the line's end first, then the words from
   * the most frequent on, those of one count in the order in which they came.
   */
  static fromCounts(counts: ReadonlyMap<string, number>, options: WordOptions = {}): WordTokenizer {
    const { eos = "<eos>" } = options;
    const sorted = [...counts].filter(([word]) => word !== eos).sort(([, a], [, b]) => b - a);
    return new WordTokenizer([eos, ...sorted.map(([word]) => word)], options);
  }

  encode(text: string, _options?: EncodeOptions): Int32Array {
    const found = text.match(parts) ?? [];
    const ids = new Int32Array(found.length * (this.#doubled ? 2 : 1));
    let count = 0;
    let wordsInLine = 0;
    for (const part of found) {
      if (part === "\n") {
        ids[count++] = this.#eos;
        if (this.#doubled && wordsInLine > 0) ids[count++] = this.#eos;
        wordsInLine = 0;
        continue;
      }
      wordsInLine++;
      const id = this.#ids.get(part) ?? this.specialTokens.unknown;
      if (id === undefined) {
        throw new UnknownSymbolError(
          `word ${JSON.stringify(part.slice(0, 60))}`,
          text.indexOf(part),
          `it has ${this.vocabSize} words and none that stands for the unknown`,
        );
      }
      ids[count++] = id;
    }
    return ids.slice(0, count);
  }

  /** Words with a space between them, a newline for a line's end: the text but for its white space. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string {
    const stream = this.stream(options);
    let text = "";
    for (let i = 0; i < ids.length; i++) text += stream.push(ids[i] as number);
    return text + stream.end();
  }

  stream({ skipSpecialTokens = false }: DecodeOptions = {}): TokenStream {
    let inside = false;
    const textOf = (id: number): string => {
      if (id === this.#eos) {
        inside = false;
        return skipSpecialTokens ? " " : "\n";
      }
      if (skipSpecialTokens && id === this.specialTokens.unknown) return "";
      const before = inside ? " " : "";
      inside = true;
      return before + (this.#words[id] ?? replacement);
    };
    return new TextStream(textOf);
  }

  /** Of the words with one character of white space behind each, and of a line's end. */
  byteLength(ids: ArrayLike<number>): number {
    return utf8Length(this.decode(ids));
  }

  /** Behind the last line's end: what a line's end becomes may depend on the whole line. */
  safeCut(text: string): number {
    return text.lastIndexOf("\n") + 1;
  }

  toJSON(): WordJSON {
    return { kind: "words", version: 1, ...this.#options, words: this.#words };
  }
}

/** How many words a text has. */
export function wordCount(text: string): number {
  let count = 0;
  for (const part of text.match(parts) ?? []) if (part !== "\n") count++;
  return count;
}

/** Adds the words of a text to counts, but for line ends; for a text larger than memory, cut at line ends. */
export function countWords(text: string, into: Map<string, number> = new Map()): Map<string, number> {
  for (const part of text.match(parts) ?? []) {
    if (part === "\n") continue;
    const count = into.get(part);
    if (count === undefined) into.set(copyOf(part), 1);
    else into.set(part, count + 1);
  }
  return into;
}
