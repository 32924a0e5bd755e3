// Layer: datasets. MT19937 (Matsumoto and Nishimura, 1998), the generator behind PyTorch's CPU random numbers: the paper's iterator
// rotates its rows by `torch.randint` of it, and with it ours reads the same windows in the same order.
// Knows no data.

const size = 624;
const shift = 397;

/** The generator's 32-bit outputs, in order. */
export class Mersenne {
  readonly #state = new Uint32Array(size);
  #next = size;

  /** @param seed a 32-bit word */
  constructor(seed: number) {
    const state = this.#state;
    state[0] = seed;
    for (let i = 1; i < size; i++) {
      const last = state[i - 1] as number;
      state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
  }

  /** The next 32-bit word, unsigned. */
  word(): number {
    if (this.#next >= size) this.#twist();
    let y = this.#state[this.#next++] as number;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < size; i++) {
      const y = ((state[i] as number) & 0x80000000) | ((state[(i + 1) % size] as number) & 0x7fffffff);
      state[i] = (state[(i + shift) % size] as number) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}
