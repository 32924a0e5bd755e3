// Layer: tokenizer. One token a character: the 27 symbols of text8, or the alphabet of any text.
// Knows no file.
import { TextStream } from "./stream.js";
import {
  type DecodeOptions,
  replacement,
  type SpecialTokens,
  type Tokenizer,
  TokenizerFormatError,
  type TokenStream,
  UnknownSymbolError,
  utf8Length,
} from "./tokenizer.js";

export interface CharacterOptions {
  /** Characters (code points) that the alphabet lacks become this one; it is added at the alphabet's end where it is not in it. */
  readonly unknown?: string;
  /** Characters that are read as another one of the alphabet: text8's files of the paper hold `_` for a space. */
  readonly aliases?: Readonly<Record<string, string>>;
}

/** What `CharacterTokenizer.toJSON` gives. */
export interface CharacterJSON extends CharacterOptions {
  readonly kind: "characters";
  readonly version: 1;
  /** The characters, in the order of their ids. */
  readonly alphabet: string;
}

/** `"é" (U+00E9)`. */
function describe(point: number): string {
  const code = `U+${point.toString(16).toUpperCase().padStart(4, "0")}`;
  return `character ${JSON.stringify(String.fromCodePoint(point))} (${code})`;
}

/** Code points below this have a table, the others a map. */
const tableSize = 0x10000;

export class CharacterTokenizer implements Tokenizer {
  readonly kind = "characters";
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  readonly #characters: readonly string[];
  readonly #table: Int32Array;
  readonly #beyond = new Map<number, number>();
  readonly #options: CharacterOptions;

  /**
   * @param alphabet the characters (code points), in the order of their ids
   * @throws TokenizerFormatError for an empty alphabet, a character twice, or an alias of a character that is not in it
   */
  constructor(alphabet: string | Iterable<string>, options: CharacterOptions = {}) {
    const characters = [...alphabet];
    const { unknown, aliases = {} } = options;
    if (unknown !== undefined && [...unknown].length !== 1) {
      throw new TokenizerFormatError(
        "character tokenizer",
        `"unknown" wants one character, got ${JSON.stringify(unknown)}`,
      );
    }
    if (unknown !== undefined && !characters.includes(unknown)) characters.push(unknown);
    if (characters.length === 0) throw new TokenizerFormatError("character tokenizer", "the alphabet is empty");
    this.#characters = characters;
    this.#options = options;
    this.vocabSize = characters.length;
    const unknownId = unknown === undefined ? -1 : characters.indexOf(unknown);
    this.specialTokens = unknownId < 0 ? {} : { unknown: unknownId };
    this.#table = new Int32Array(tableSize).fill(unknownId);
    const seen = new Set<number>();
    characters.forEach((character, id) => {
      const point = character.codePointAt(0) ?? -1;
      if (character !== String.fromCodePoint(point)) {
        throw new TokenizerFormatError("character tokenizer", `${JSON.stringify(character)} is not one character`);
      }
      if (seen.has(point)) {
        throw new TokenizerFormatError("character tokenizer", `the ${describe(point)} is in the alphabet twice`);
      }
      seen.add(point);
      this.#set(point, id);
    });
    for (const [alias, character] of Object.entries(aliases)) {
      const id = characters.indexOf(character);
      if ([...alias].length !== 1 || id < 0) {
        throw new TokenizerFormatError(
          "character tokenizer",
          `alias ${JSON.stringify(alias)} wants to be one character that stands for one of the alphabet`,
        );
      }
      this.#set(alias.codePointAt(0) as number, id);
    }
  }

  /** A tokenizer of the code points of a text, sorted; `points` is what {@link collectCodePoints} gathered. */
  static fromCodePoints(points: Iterable<number>, options: CharacterOptions = {}): CharacterTokenizer {
    const sorted = [...points].sort((a, b) => a - b);
    return new CharacterTokenizer(
      sorted.map((point) => String.fromCodePoint(point)),
      options,
    );
  }

  /** A tokenizer of the characters of a text, sorted by code point. */
  static fromText(text: string, options: CharacterOptions = {}): CharacterTokenizer {
    return CharacterTokenizer.fromCodePoints(collectCodePoints(text), options);
  }

  #set(point: number, id: number): void {
    if (point < tableSize) this.#table[point] = id;
    else this.#beyond.set(point, id);
  }

  #idOf(point: number): number {
    return point < tableSize
      ? (this.#table[point] as number)
      : (this.#beyond.get(point) ?? this.specialTokens.unknown ?? -1);
  }

  encode(text: string): Int32Array {
    const ids = new Int32Array(text.length);
    let count = 0;
    for (let i = 0; i < text.length; i++) {
      const point = text.codePointAt(i) as number;
      const id = this.#idOf(point);
      if (id < 0) {
        throw new UnknownSymbolError(
          describe(point),
          i,
          `it has ${this.vocabSize} characters (take it out of the text, make the tokenizer from a text that has it, or give it an "unknown" character)`,
        );
      }
      if (point >= tableSize) i++;
      ids[count++] = id;
    }
    return count === ids.length ? ids : ids.slice(0, count);
  }

  decode(ids: ArrayLike<number>, options?: DecodeOptions): string {
    const parts: string[] = new Array(ids.length);
    const skipped = options?.skipSpecialTokens ? this.specialTokens.unknown : undefined;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] as number;
      parts[i] = id === skipped ? "" : this.#textOf(id);
    }
    return parts.join("");
  }

  #textOf(id: number): string {
    return this.#characters[id] ?? replacement;
  }

  stream(options?: DecodeOptions): TokenStream {
    return new TextStream((id) => this.decode([id], options));
  }

  byteLength(ids: ArrayLike<number>): number {
    let sum = 0;
    for (let i = 0; i < ids.length; i++) sum += utf8Length(this.#textOf(ids[i] as number));
    return sum;
  }

  safeCut(text: string): number {
    const last = text.charCodeAt(text.length - 1);
    return last >= 0xd800 && last < 0xdc00 ? text.length - 1 : text.length;
  }

  toJSON(): CharacterJSON {
    return { kind: "characters", version: 1, alphabet: this.#characters.join(""), ...this.#options };
  }
}

/** Adds the code points of a text to a set: the alphabet of a text too large for memory, window by window. */
export function collectCodePoints(text: string, into: Set<number> = new Set()): Set<number> {
  const seen = new Uint8Array(tableSize);
  for (let i = 0; i < text.length; i++) {
    const point = text.codePointAt(i) as number;
    if (point < tableSize) seen[point] = 1;
    else {
      i++;
      into.add(point);
    }
  }
  for (let point = seen.indexOf(1); point >= 0; point = seen.indexOf(1, point + 1)) into.add(point);
  return into;
}

/** The 27 symbols of text8: space is 0, a to z are 1 to 26. `_`, which the paper's files hold for a space, is read as one. */
export function text8Tokenizer(): CharacterTokenizer {
  return new CharacterTokenizer(" abcdefghijklmnopqrstuvwxyz", { aliases: { _: " " } });
}
