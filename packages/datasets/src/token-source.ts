// Layer: datasets. A row of tokens that can be read anywhere, from memory here; and how tokens lie in files.
// Knows no file and no tokenizer.

/** Tokens that are read by position. */
export interface TokenSource {
  /** What it is, for messages. */
  readonly name: string;
  /** How many tokens. */
  readonly length: number;
  /** Ids are 0 to vocabSize - 1, where it is known. */
  readonly vocabSize?: number;
  /** Bytes of UTF-8 (or raw bytes) that the tokens stand for, where it is known: the divisor of bits per byte. */
  readonly bytes?: number;
  /** Where documents begin, where that is known: the places behind `from` and before `to`. */
  readonly documents?: { startsBetween(from: number, to: number): Promise<readonly number[]> };
  /**
   * `count` ids from `start`.
   * @throws RangeError outside the source; StoreError where a token is outside the vocabulary
   */
  read(start: number, count: number): Promise<Int32Array>;
}

/** Data that is not what it says. The message names the file and the place. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  constructor(source: string, detail: string, options?: ErrorOptions) {
    super(`${source}: ${detail}`, options);
  }
}

/** @throws RangeError naming the source and both ranges */
export function checkTokenRange(source: TokenSource, start: number, count: number): void {
  if (Number.isSafeInteger(start) && Number.isSafeInteger(count) && start >= 0 && count >= 0) {
    if (start + count <= source.length) return;
  }
  throw new RangeError(
    `${source.name}: tokens ${start} to ${start + count} were asked for, but it holds ${source.length} (0 to ${source.length})`,
  );
}

/**
 * Checks every id against the vocabulary.
 * @param first position of `ids[0]` in the source
 * @throws StoreError naming the source, the position and the value
 */
export function checkTokens(name: string, ids: ArrayLike<number>, first: number, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    if (id >= 0 && id < vocabSize) continue;
    throw new StoreError(
      name,
      `token ${first + i} is ${id}, outside the vocabulary of ${vocabSize} (0 to ${vocabSize - 1}); ` +
        "the data is damaged or was made with another tokenizer: prepare it again",
    );
  }
}

/**
 * Tokens in memory.
 * @throws StoreError where an id is outside `vocabSize`
 */
export function arraySource(
  ids: Int32Array,
  options: { readonly name?: string; readonly vocabSize?: number; readonly bytes?: number } = {},
): TokenSource {
  const { name = "array", vocabSize, bytes } = options;
  if (vocabSize !== undefined) checkTokens(name, ids, 0, vocabSize);
  const source: TokenSource = {
    name,
    length: ids.length,
    ...(vocabSize !== undefined && { vocabSize }),
    ...(bytes !== undefined && { bytes }),
    async read(start, count) {
      checkTokenRange(source, start, count);
      return ids.slice(start, start + count);
    },
  };
  return source;
}

/** Unsigned whole numbers of 1, 2 or 4 bytes, little-endian. */
export type TokenType = "u8" | "u16" | "u32";

export const tokenBytes: Readonly<Record<TokenType, number>> = { u8: 1, u16: 2, u32: 4 };

/** The smallest type that holds every id of a vocabulary. */
export function tokenTypeFor(vocabSize: number): TokenType {
  return vocabSize <= 0x100 ? "u8" : vocabSize <= 0x10000 ? "u16" : "u32";
}

/** Whether numbers lie in memory as they lie in the files: nearly every machine has it so. */
const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Ids as little-endian bytes. */
export function packTokens(ids: Int32Array, type: TokenType): Uint8Array {
  if (type === "u8") return new Uint8Array(ids);
  if (littleEndian) {
    const packed = type === "u16" ? new Uint16Array(ids) : new Uint32Array(ids);
    return new Uint8Array(packed.buffer);
  }
  const width = tokenBytes[type];
  const bytes = new Uint8Array(ids.length * width);
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    for (let byte = 0; byte < width; byte++) bytes[i * width + byte] = id >>> (8 * byte);
  }
  return bytes;
}

/** Little-endian bytes as numbers of their type, on a machine of either order. */
export function unpackTokens(bytes: Uint8Array, type: TokenType): Uint8Array | Uint16Array | Uint32Array {
  if (type === "u8") return bytes;
  const count = bytes.length / tokenBytes[type];
  if (littleEndian) {
    const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
    return type === "u16"
      ? new Uint16Array(aligned.buffer, aligned.byteOffset, count)
      : new Uint32Array(aligned.buffer, aligned.byteOffset, count);
  }
  const ids = type === "u16" ? new Uint16Array(count) : new Uint32Array(count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let i = 0; i < count; i++) ids[i] = type === "u16" ? view.getUint16(2 * i, true) : view.getUint32(4 * i, true);
  return ids;
}
