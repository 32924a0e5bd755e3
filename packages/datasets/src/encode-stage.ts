// Layer: datasets. The stages between bytes and ids that a split goes through, window by window: strip, drop newlines, encode.
// Knows no file and no split.
import { type ByteTokenizer, type Tokenizer, UnknownSymbolError } from "@diffmamba/tokenizer";
import { StoreError } from "./token-source.js";
import { Utf8Decoder, Utf8Error } from "./utf8.js";

/** White space of ASCII, as text8's preparation strips it. */
const isSpace = (byte: number): boolean => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);

/** Leaves out white space at the start and at the end of everything that is pushed. */
export class Strip {
  #started = false;
  /** White space that may turn out to be the end's. */
  #held: Uint8Array[] = [];

  push(bytes: Uint8Array): Uint8Array[] {
    let from = 0;
    if (!this.#started) while (from < bytes.length && isSpace(bytes[from] as number)) from++;
    let to = bytes.length;
    while (to > from && isSpace(bytes[to - 1] as number)) to--;
    if (to === from) {
      if (this.#started && bytes.length > 0) this.#held.push(bytes.slice());
      return [];
    }
    const out = [...this.#held, bytes.subarray(from, to)];
    this.#held = to < bytes.length ? [bytes.slice(to)] : [];
    this.#started = true;
    return out;
  }
}

/** The bytes without newlines. */
export function withoutNewlines(bytes: Uint8Array): Uint8Array {
  return bytes.includes(0x0a) ? bytes.filter((byte) => byte !== 0x0a) : bytes;
}

/** Bytes to ids, in windows. */
export interface Encoder {
  push(bytes: Uint8Array): Int32Array;
  end(): Int32Array;
}

const none = new Int32Array(0);

/** Bytes to ids, one each. */
export class ByteEncoder implements Encoder {
  #position = 0;

  /** @param name of the source, for messages */
  constructor(
    readonly tokenizer: ByteTokenizer,
    readonly name: string,
  ) {}

  push(bytes: Uint8Array): Int32Array {
    try {
      const ids = this.tokenizer.encodeBytes(bytes);
      this.#position += bytes.length;
      return ids;
    } catch (error) {
      throw error instanceof UnknownSymbolError ? error.within(this.name, this.#position) : error;
    }
  }

  end(): Int32Array {
    return none;
  }
}

/** Text that waits for a safe place to be cut before it is looked for; and how much may wait before that is given up. */
const firstLook = 1 << 16;
const longestWait = 1 << 23;

/** UTF-8 to ids through any tokenizer, cut only where the ids are those of the whole text. */
export class TextEncoderStage implements Encoder {
  readonly #decoder = new Utf8Decoder();
  #text = "";
  /** UTF-16 units encoded so far. */
  #position = 0;
  #lookAt = firstLook;

  /** @param name of the source, for messages */
  constructor(
    readonly tokenizer: Tokenizer,
    readonly name: string,
  ) {}

  push(bytes: Uint8Array): Int32Array {
    this.#text += this.#decode(() => this.#decoder.push(bytes));
    if (this.#text.length < this.#lookAt) return none;
    const cut = this.tokenizer.safeCut(this.#text);
    if (cut === 0) {
      if (this.#text.length >= longestWait) {
        throw new StoreError(
          this.name,
          `no place was found in ${this.#text.length} characters where this tokenizer encodes the two parts as it does the whole; ` +
            "split the file into documents and prepare them one by one",
        );
      }
      this.#lookAt = 2 * this.#text.length;
      return none;
    }
    this.#lookAt = firstLook;
    return this.#encode(cut);
  }

  end(): Int32Array {
    this.#decode(() => {
      this.#decoder.end();
      return "";
    });
    return this.#encode(this.#text.length);
  }

  #encode(cut: number): Int32Array {
    try {
      const ids = this.tokenizer.encode(this.#text.slice(0, cut));
      this.#text = this.#text.slice(cut);
      this.#position += cut;
      return ids;
    } catch (error) {
      throw error instanceof UnknownSymbolError ? error.within(this.name, this.#position) : error;
    }
  }

  #decode(run: () => string): string {
    try {
      return run();
    } catch (error) {
      if (!(error instanceof Utf8Error)) throw error;
      throw new StoreError(
        this.name,
        `byte ${error.position} is not UTF-8 text; convert the file, or prepare it as bytes`,
        { cause: error },
      );
    }
  }
}
