// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): the same seed gives the same numbers everywhere.
// A stream is a seed and a name; a number is found by its step and element, so nothing depends on the order of drawing.
// Knows 32-bit arithmetic and nothing else.

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** The high 32 bits of a 32 x 32 bit product. */
function highProduct(a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + (carry >>> 16)) >>> 0;
}

/** Ten rounds over a counter of four words with a key of two; writes four words to `out`. */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  out: Uint32Array,
): void {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const h0 = highProduct(M0, c0);
    const l0 = Math.imul(M0, c0) >>> 0;
    const h1 = highProduct(M1, c2);
    const l1 = Math.imul(M1, c2) >>> 0;
    c0 = (h1 ^ c1 ^ k0) >>> 0;
    c1 = l1;
    c2 = (h0 ^ c3 ^ k1) >>> 0;
    c3 = l0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** FNV-1a over UTF-8: a stream's name as one word. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** The key of a stream: the seed, mixed with the hash of the stream's name. @throws RangeError unless 0 <= seed < 2^53 */
export function streamKey(seed: number, name: string): [number, number] {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`seed: ${seed} is no seed; it must be a whole number from 0 to 2^53 - 1.`);
  }
  const low = seed >>> 0;
  const high = Math.floor(seed / 0x100000000) >>> 0;
  return [low, (hashName(name) ^ Math.imul(high, 0x85ebca6b)) >>> 0];
}

/** A stream of random words: word `element` of step `step` is word `element % 4` of the block (element / 4, step). */
export class RandomStream {
  readonly key: readonly [number, number];
  readonly #block = new Uint32Array(4);

  constructor(seed: number, name: string) {
    this.key = streamKey(seed, name);
  }

  /** Fills `out` with words of step `step`, from element 0. */
  words(out: Uint32Array, step = 0): Uint32Array {
    const high = Math.floor(step / 0x100000000) >>> 0;
    for (let i = 0; i < out.length; i += 4) {
      philox4x32([i >>> 2, 0, step >>> 0, high], this.key, this.#block);
      for (let j = 0; j < 4 && i + j < out.length; j++) out[i + j] = this.#block[j];
    }
    return out;
  }

  /** Fills `out` with numbers of [low, high), 24 bits each, so that they are the same in f32. */
  uniform<T extends Float32Array | Float64Array>(out: T, low = 0, high = 1, step = 0): T {
    const words = this.words(new Uint32Array(out.length), step);
    for (let i = 0; i < out.length; i++) out[i] = low + (high - low) * ((words[i] >>> 8) * 2 ** -24);
    return out;
  }

  /** Fills `out` with normally distributed numbers (Box and Muller 1958). */
  normal<T extends Float32Array | Float64Array>(out: T, mean = 0, std = 1, step = 0): T {
    const words = this.words(new Uint32Array(out.length + (out.length % 2)), step);
    for (let i = 0; i < out.length; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(((words[i] >>> 8) + 1) * 2 ** -24));
      const angle = 2 * Math.PI * ((words[i + 1] >>> 8) * 2 ** -24);
      out[i] = mean + std * radius * Math.cos(angle);
      if (i + 1 < out.length) out[i + 1] = mean + std * radius * Math.sin(angle);
    }
    return out;
  }

  /** The number of [0, 1) at one place, with 53 random bits; apart from those of {@link words}. */
  at(element: number, step = 0): number {
    philox4x32([element >>> 0, 1, step >>> 0, Math.floor(step / 0x100000000) >>> 0], this.key, this.#block);
    return ((this.#block[0] >>> 5) * 2 ** 26 + (this.#block[1] >>> 6)) * 2 ** -53;
  }

  /** A whole number from 0 to n - 1 at one place. */
  integer(n: number, element: number, step = 0): number {
    return Math.floor(this.at(element, step) * n);
  }
}
