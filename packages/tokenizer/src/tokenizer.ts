// Layer: tokenizer. What a tokenizer is, for everything above it: text to ids and back, whole or a token at a time.
// Knows no kind of tokenizer and no file.

/** Ids of the tokens that mark something; absent where the vocabulary has none. */
export interface SpecialTokens {
  readonly bos?: number;
  readonly eos?: number;
  readonly pad?: number;
  readonly unknown?: number;
}

export interface EncodeOptions {
  /** Adds what the tokenizer's post-processor adds around a text (such as a first token). Off unless asked for. */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leaves special tokens out of the text. Off unless asked for. */
  readonly skipSpecialTokens?: boolean;
}

/** Text from tokens as they come. The pieces joined are exactly `decode` of all ids. */
export interface TokenStream {
  /** The text that this token completes: "" where it ends inside a character. Never a part of a character. */
  push(id: number): string;
  /** What is left: U+FFFD for a character that never came to its end. The stream starts over. */
  end(): string;
}

export type TokenizerKind = "characters" | "bytes" | "words" | "tokenizer.json";

export interface Tokenizer {
  readonly kind: TokenizerKind;
  /** Ids are 0 to vocabSize - 1. A model's embedding may be larger (padded). */
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  /**
   * Ids of a text.
   * @throws UnknownSymbolError where the vocabulary lacks a symbol of the text
   */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Text of ids. An id outside the vocabulary (a padded row of a model's embedding) becomes U+FFFD. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** Text of ids that come one by one. */
  stream(options?: DecodeOptions): TokenStream;
  /** Bytes of UTF-8 that these ids stand for: the divisor of bits per byte. */
  byteLength(ids: ArrayLike<number>): number;
  /**
   * How much of a text, from its start, may be encoded now when more text is to follow: `encode` of that part and of the
   * rest (with what follows), joined, is `encode` of the whole. 0 where there is no such place.
   */
  safeCut(text: string): number;
  /** Everything that {@link tokenizerFromJSON} needs to make this tokenizer again. */
  toJSON(): object;
}

/** A symbol of a text that a vocabulary does not have. */
export class UnknownSymbolError extends Error {
  override readonly name = "UnknownSymbolError";
  /**
   * @param symbol what it is, such as `character "é" (U+00E9)`
   * @param position where it is: index in UTF-16 code units of a string, or in bytes
   * @param remedy what to do about it
   */
  constructor(
    readonly symbol: string,
    readonly position: number,
    readonly remedy: string,
    source = "",
  ) {
    super(
      `${source}${source && ": "}the ${symbol} at position ${position} is not in the tokenizer's vocabulary; ${remedy}`,
    );
  }

  /** The same error for a part of a larger text: named, and counted from its start. */
  within(source: string, offset: number): UnknownSymbolError {
    return new UnknownSymbolError(this.symbol, this.position + offset, this.remedy, source);
  }
}

/** A tokenizer's description that cannot be used. The message names the file, or where it came from. */
export class TokenizerFormatError extends Error {
  override readonly name = "TokenizerFormatError";
  constructor(source: string, detail: string, options?: ErrorOptions) {
    super(`${source}: ${detail}`, options);
  }
}

/** What stands for an id that has no text. */
export const replacement = "\uFFFD";

/** Bytes of a string in UTF-8, a lone surrogate counted as U+FFFD (3), without making them. */
export function utf8Length(text: string): number {
  let length = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) continue;
    if (unit < 0x800) length += 1;
    else if (unit >= 0xd800 && unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      length += 2; // a pair: 4 bytes for 2 units
      i += 1;
    } else length += 2;
  }
  return length;
}

/**
 * The size of a vocabulary rounded up to a multiple, for embeddings whose rows come in multiples: 50,257 becomes 50,304 with 64.
 * The ids that are added have no text.
 */
export function paddedVocabSize(vocabSize: number, multiple: number): number {
  if (!Number.isSafeInteger(multiple) || multiple < 1) {
    throw new RangeError(`a vocabulary is padded to a multiple of a whole number above 0, got ${multiple}`);
  }
  return Math.ceil(vocabSize / multiple) * multiple;
}
