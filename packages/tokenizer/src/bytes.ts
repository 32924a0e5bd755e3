// Layer: tokenizer. One token a byte: all 256, or only those that a file holds (enwik8 without its newlines has 204).
// Knows no file.
import { ByteStream, textDecoder } from "./stream.js";
import {
  replacement,
  type SpecialTokens,
  type Tokenizer,
  TokenizerFormatError,
  type TokenStream,
  UnknownSymbolError,
} from "./tokenizer.js";

/** What `ByteTokenizer.toJSON` gives. */
export interface ByteJSON {
  readonly kind: "bytes";
  readonly version: 1;
  /** The bytes in the order of their ids; without it all 256, each its own id. */
  readonly alphabet?: readonly number[];
}

/** U+FFFD, for an id that is no byte. */
const unknownBytes = new TextEncoder().encode(replacement);

export class ByteTokenizer implements Tokenizer {
  readonly kind = "bytes";
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens = {};
  readonly #alphabet: Uint8Array;
  /** Id of each byte value, -1 where it has none. */
  readonly #ids = new Int16Array(256).fill(-1);
  readonly #whole: boolean;

  /**
   * @param alphabet the byte values in the order of their ids; without it all 256, each its own id
   * @throws TokenizerFormatError for a value that is no byte, is there twice, or for an empty alphabet
   */
  constructor(alphabet?: Iterable<number>) {
    this.#whole = alphabet === undefined;
    const values = alphabet === undefined ? Array.from({ length: 256 }, (_, value) => value) : [...alphabet];
    if (values.length === 0) throw new TokenizerFormatError("byte tokenizer", "the alphabet is empty");
    values.forEach((value, id) => {
      if (!Number.isInteger(value) || value < 0 || value > 255) {
        throw new TokenizerFormatError("byte tokenizer", `${String(value)} in the alphabet is not a byte (0 to 255)`);
      }
      if (this.#ids[value] !== -1)
        throw new TokenizerFormatError("byte tokenizer", `byte ${value} is in the alphabet twice`);
      this.#ids[value] = id;
    });
    this.#alphabet = Uint8Array.from(values);
    this.vocabSize = values.length;
  }

  encode(text: string): Int32Array {
    return this.encodeBytes(new TextEncoder().encode(text));
  }

  /**
   * Ids of raw bytes.
   * @throws UnknownSymbolError where the alphabet lacks one
   */
  encodeBytes(bytes: Uint8Array): Int32Array {
    const ids = new Int32Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) {
      const value = bytes[i] as number;
      const id = this.#ids[value] as number;
      if (id < 0) {
        throw new UnknownSymbolError(
          `byte 0x${value.toString(16).padStart(2, "0")}`,
          i,
          `it has ${this.vocabSize} of the 256 bytes (take it out, or use a byte tokenizer of all 256)`,
        );
      }
      ids[i] = id;
    }
    return ids;
  }

  /** The bytes of ids; an id outside the alphabet becomes those of U+FFFD. */
  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    const bytes: number[] = [];
    for (let i = 0; i < ids.length; i++) bytes.push(...this.#bytesOf(ids[i] as number));
    return Uint8Array.from(bytes);
  }

  #bytesOf(id: number): Uint8Array {
    return id >= 0 && id < this.vocabSize ? this.#alphabet.subarray(id, id + 1) : unknownBytes;
  }

  decode(ids: ArrayLike<number>): string {
    return textDecoder().decode(this.decodeBytes(ids));
  }

  stream(): TokenStream {
    return new ByteStream((id) => this.#bytesOf(id));
  }

  byteLength(ids: ArrayLike<number>): number {
    return ids.length;
  }

  safeCut(text: string): number {
    const last = text.charCodeAt(text.length - 1);
    return last >= 0xd800 && last < 0xdc00 ? text.length - 1 : text.length;
  }

  toJSON(): ByteJSON {
    return this.#whole
      ? { kind: "bytes", version: 1 }
      : { kind: "bytes", version: 1, alphabet: Array.from(this.#alphabet) };
  }
}
