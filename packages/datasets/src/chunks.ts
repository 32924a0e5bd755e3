// Layer: datasets. Cuts what is to be prepared into chunks of about one size, each of which is encoded by itself with the ids of the
// whole: between documents, or where the tokenizer says that a text may be cut. What the chunks are depends on the source alone.
// Knows no file.
import { type Tokenizer, utf8Length } from "@diffmamba/tokenizer";
import { StoreError } from "./token-source.js";

/** A part of a split, in the order of the source: text (of a document, which may end behind it), or bytes. */
export type Piece =
  | { readonly split: string; readonly text: string; readonly ends: boolean }
  | { readonly split: string; readonly bytes: Uint8Array };

/** Texts that are encoded each by itself. */
export interface TextChunk {
  readonly split: string;
  readonly texts: readonly string[];
  /** Whether a document ends behind each of the texts. */
  readonly ends: readonly boolean[];
  /** Bytes of UTF-8. */
  readonly bytes: number;
  /** UTF-16 units of the split before this chunk. */
  readonly position: number;
}

export interface ByteChunk {
  readonly split: string;
  readonly raw: Uint8Array;
  /** Bytes of the split before this chunk. */
  readonly position: number;
}

export type Chunk = TextChunk | ByteChunk;

/** UTF-16 units of a chunk; of a text that is not at its end, how much waits before a place to cut is looked for; and at most. */
const chunkUnits = 1 << 18;
const firstLook = 1 << 17;
const longestWait = 1 << 23;

/** The text of one split that waits. */
class Waiting {
  /** Of the document that has not come to its end. */
  text = "";
  texts: string[] = [];
  ends: boolean[] = [];
  /** Units in `texts`. */
  units = 0;
  /** Units given away. */
  position = 0;
  lookAt = firstLook;

  add(text: string, ends: boolean): void {
    this.texts.push(text);
    this.ends.push(ends);
    this.units += text.length;
  }

  take(split: string): TextChunk {
    const { texts, ends, position } = this;
    const bytes = texts.reduce((sum, text) => sum + utf8Length(text), 0);
    this.position += this.units;
    [this.texts, this.ends, this.units] = [[], [], 0];
    return { split, texts, ends, bytes, position };
  }
}

/**
 * @param name of the source, for messages
 * @throws StoreError where a text has no place at which this tokenizer may be cut
 */
export async function* chunksOf(
  pieces: AsyncIterable<Piece>,
  tokenizer: Tokenizer,
  name: string,
): AsyncGenerator<Chunk> {
  const splits = new Map<string, Waiting>();
  const raw = new Map<string, number>();
  for await (const piece of pieces) {
    const { split } = piece;
    if ("bytes" in piece) {
      const position = raw.get(split) ?? 0;
      raw.set(split, position + piece.bytes.length);
      if (piece.bytes.length > 0) yield { split, raw: piece.bytes, position };
      continue;
    }
    const waiting = splits.get(split) ?? new Waiting();
    splits.set(split, waiting);
    waiting.text += piece.text;
    if (piece.ends) {
      waiting.add(waiting.text, true);
      waiting.text = "";
      waiting.lookAt = firstLook;
    } else if (waiting.text.length >= waiting.lookAt) {
      const cut = tokenizer.safeCut(waiting.text);
      if (cut > 0) {
        waiting.add(waiting.text.slice(0, cut), false);
        waiting.text = waiting.text.slice(cut);
        waiting.lookAt = firstLook;
      } else if (waiting.text.length < longestWait) waiting.lookAt = 2 * waiting.text.length;
      else throw noPlace(`${name} (split "${split}")`, waiting.text.length);
    }
    if (waiting.units >= chunkUnits) yield waiting.take(split);
  }
  for (const [split, waiting] of splits) {
    if (waiting.text !== "") waiting.add(waiting.text, false);
    if (waiting.texts.length > 0) yield waiting.take(split);
  }
}

function noPlace(name: string, units: number): StoreError {
  return new StoreError(
    name,
    `no place was found in ${units} characters where this tokenizer encodes the two parts as it does the whole; ` +
      "split the file into documents and prepare them one by one",
  );
}
