// Layer: datasets. Strict UTF-8 from windows of bytes: a character may lie across two of them, and a wrong byte is named by its place.
// Knows no file.

/** A byte that is no UTF-8. `position` counts bytes from the start of what was pushed. */
export class Utf8Error extends Error {
  override readonly name = "Utf8Error";
  constructor(readonly position: number) {
    super(`byte ${position} is not UTF-8`);
  }
}

/** Whether a byte continues a character, so that no text may be cut before it. */
export const continuesCharacter = (byte: number): boolean => (byte & 0xc0) === 0x80;

/** How many bytes at the end begin a character that is not complete (0 to 3). */
function incompleteBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (continuesCharacter(byte)) continue;
    const wants = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return wants > back ? back : 0;
  }
  return 0;
}

const strict = (): TextDecoder => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodes(bytes: Uint8Array): boolean {
  try {
    strict().decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/** Decodes windows of UTF-8; a byte order mark is kept. */
export class Utf8Decoder {
  #decoder = strict();
  /** Bytes of a character whose end has not come. */
  #rest = new Uint8Array(0);
  #position = 0;

  /** @throws Utf8Error at the first byte that is no UTF-8 */
  push(bytes: Uint8Array): string {
    try {
      const text = this.#decoder.decode(bytes, { stream: true });
      const seen = bytes.length < 4 ? joined(this.#rest, bytes) : bytes;
      this.#rest = seen.slice(seen.length - incompleteBytes(seen));
      this.#position += bytes.length;
      return text;
    } catch {
      throw this.#locate(bytes);
    }
  }

  /** @throws Utf8Error where the bytes end inside a character */
  end(): void {
    if (this.#rest.length > 0) throw new Utf8Error(this.#position - this.#rest.length);
    this.#decoder = strict();
  }

  /** The longest start that decodes, by halving. */
  #locate(bytes: Uint8Array): Utf8Error {
    const all = joined(this.#rest, bytes);
    let good = 0;
    let bad = all.length;
    while (bad - good > 1) {
      const middle = (good + bad) >> 1;
      if (decodes(all.subarray(0, middle))) good = middle;
      else bad = middle;
    }
    return new Utf8Error(this.#position - this.#rest.length + bad - 1);
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
