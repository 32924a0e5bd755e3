// Layer: datasets. Small stages on bytes that a split goes through before it is encoded: white space at its ends, newlines.
// Knows no file and no tokenizer.

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
