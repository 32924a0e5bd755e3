// Layer: datasets. Random numbers that depend on a place (seed, stream, step, element) and on nothing before it, so that
// a resumed run draws what it would have drawn. Philox 4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Knows no data.

const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const weyl0 = 0x9e3779b9;
const weyl1 = 0xbb67ae85;
const rounds = 10;

/** The upper 32 bits of a 32 by 32 bit product. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carried = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carried / 0x10000)) >>> 0;
}

/**
 * One block of Philox 4x32-10.
 * @param counter four 32-bit words
 * @param key two 32-bit words
 * @returns four 32-bit words, unsigned
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < rounds; round++) {
    const high0 = multiplyHigh(multiplier0, c0);
    const low0 = Math.imul(multiplier0, c0);
    const high1 = multiplyHigh(multiplier1, c2);
    const low1 = Math.imul(multiplier1, c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + weyl0) >>> 0;
    k1 = (k1 + weyl1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** FNV-1a of a stream's name: the second word of its key. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** Random numbers of one stream: key = (seed, name), counter = (step, element). */
export class RandomStream {
  readonly #key: [number, number];
  readonly #seedHigh: number;

  /**
   * @param seed a whole number from 0 to 2^53 - 1
   * @param name keeps streams of one seed apart
   */
  constructor(seed: number, name: string) {
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new RangeError(`a seed is a whole number from 0 on, got ${seed}`);
    this.#key = [seed >>> 0, hashName(name)];
    this.#seedHigh = Math.floor(seed / 2 ** 32);
  }

  /** A number in [0, 1) of 53 random bits. */
  uniform(step: number, element: number): number {
    const counter = [step >>> 0, Math.floor(step / 2 ** 32), element >>> 0, this.#seedHigh] as const;
    const [high, low] = philox4x32(counter, this.#key);
    return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
  }

  /** A whole number from 0 to `count` - 1. */
  integer(step: number, element: number, count: number): number {
    return Math.floor(this.uniform(step, element) * count);
  }
}
