// Layer: datasets. A random order of 0 to n - 1 of which any place can be asked for by itself: nothing is kept, whatever n is.
// Knows no data.
import { RandomStream } from "@diffmamba/random";

const rounds = 4;

/**
 * A permutation of 0 to n - 1: a Feistel network (Luby and Rackoff 1988, four rounds) over the next power of four, whose values beyond n
 * are sent through again until they fall below (Black and Rogaway 2002, cycle walking).
 */
export class Permutation {
  readonly #half: number;
  readonly #random: RandomStream;

  /**
   * @param n up to 2^48
   * @param seed of the order; `round` is another order of the same seed, such as an epoch
   */
  constructor(
    readonly n: number,
    seed: number,
    readonly round = 0,
  ) {
    if (!Number.isSafeInteger(n) || n < 1 || n > 2 ** 48) {
      throw new RangeError(`a permutation wants a whole number of places from 1 to 2^48, got ${n}`);
    }
    this.#half = 2 ** Math.max(1, Math.ceil(Math.log2(n) / 2));
    this.#random = new RandomStream(seed, "data order");
  }

  /** What is at a place. */
  at(place: number): number {
    if (!Number.isSafeInteger(place) || place < 0 || place >= this.n) {
      throw new RangeError(`place ${place} was asked for of a permutation of ${this.n}`);
    }
    let value = place;
    do value = this.#mix(value);
    while (value >= this.n);
    return value;
  }

  #mix(value: number): number {
    const half = this.#half;
    let left = Math.floor(value / half);
    let right = value % half;
    for (let round = 0; round < rounds; round++) {
      const key = this.#random.integer(half, right * rounds + round, this.round);
      [left, right] = [right, (left + key) % half];
    }
    return left * half + right;
  }
}
