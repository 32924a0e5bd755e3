// Layer: tokenizer. Text from tokens one by one: exactly, where tokens are bytes; by comparing decodings, where they are not.
// Knows no vocabulary.
import { replacement, type TokenStream } from "./tokenizer.js";

/** A UTF-8 decoder that keeps a byte order mark and puts U+FFFD where bytes are no text. */
export function textDecoder(): TextDecoder {
  return new TextDecoder("utf-8", { ignoreBOM: true });
}

/** Tokens that are bytes: a character waits until its last byte has come. */
export class ByteStream implements TokenStream {
  readonly #decoder = textDecoder();

  /** @param bytesOf the bytes of a token */
  constructor(readonly bytesOf: (id: number) => Uint8Array) {}

  push(id: number): string {
    return this.#decoder.decode(this.bytesOf(id), { stream: true });
  }

  end(): string {
    return this.#decoder.decode();
  }
}

/** Tokens that are text by themselves. */
export class TextStream implements TokenStream {
  constructor(readonly textOf: (id: number) => string) {}

  push(id: number): string {
    return this.textOf(id);
  }

  end(): string {
    return "";
  }
}

/** Tokens in a row that may end inside a character, before they are taken for broken ones: UTF-8 has at most 4 bytes. */
const longestWait = 4;

/**
 * Any decoder: decodes a short run of tokens before and after each new one, and gives the difference. A run is kept as context,
 * because decoders of the SentencePiece kind write a word's first space only inside a text.
 */
export class WindowStream implements TokenStream {
  #ids: number[] = [];
  /** Tokens at the start of `#ids` whose text has been given. */
  #given = 0;

  constructor(readonly decode: (ids: readonly number[]) => string) {}

  push(id: number): string {
    this.#ids.push(id);
    const before = this.decode(this.#ids.slice(0, this.#given));
    const after = this.decode(this.#ids);
    const waiting = after.endsWith(replacement) && this.#ids.length - this.#given < longestWait;
    if (waiting || after.length <= before.length) return "";
    this.#ids = this.#ids.slice(this.#given);
    this.#given = this.#ids.length;
    return after.slice(before.length);
  }

  end(): string {
    const before = this.decode(this.#ids.slice(0, this.#given));
    const after = this.decode(this.#ids);
    this.#ids = [];
    this.#given = 0;
    return after.slice(before.length);
  }
}
