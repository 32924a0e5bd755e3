// Layer: eval. How long the scored text is, in bytes and in characters, counted from its tokens as they pass.
// Knows tokenizers by what it needs of them. Knows no window and no model.

/** What is needed of a tokenizer: every tokenizer of @diffmamba/tokenizer has it. */
export interface TextMeasure {
  /** Bytes of UTF-8 that these ids stand for. */
  byteLength(ids: ArrayLike<number>): number;
  /** Text of ids that come one by one. */
  stream(): { push(id: number): string; end(): string };
}

function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Counts bytes and characters (code points) of tokens, row by row: a character may lie across two windows of a row. */
export class TextExtent {
  bytes = 0;
  #characters = 0;
  readonly #rows = new Map<number, ReturnType<TextMeasure["stream"]>>();

  constructor(readonly measure: TextMeasure) {}

  /** The next tokens of a row. */
  push(row: number, ids: Int32Array): void {
    this.bytes += this.measure.byteLength(ids);
    let stream = this.#rows.get(row);
    if (stream === undefined) {
      stream = this.measure.stream();
      this.#rows.set(row, stream);
    }
    for (const id of ids) this.#characters += codePoints(stream.push(id));
  }

  /** Characters so far; ends every row. */
  end(): number {
    for (const stream of this.#rows.values()) this.#characters += codePoints(stream.end());
    this.#rows.clear();
    return this.#characters;
  }
}
