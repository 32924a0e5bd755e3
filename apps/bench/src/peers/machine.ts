// Layer: apps/bench, peers. Limits of this machine as plain JavaScript meets them: multiply-adds in registers, and copies.
// Knows arithmetic and typed arrays. Knows no tensor.
import type { Entry } from "../race.js";

/** Multiply-adds of {@link chains} on one sample: a few milliseconds. */
const ROUNDS = 1 << 20;

/** Independent chains, so that no addition waits for the one before it; more of them no longer fit in registers. */
const CHAINS = 12;

/** `rounds` multiply-adds in each of twelve chains. All go to y / (1 - x), so no number overflows or underflows. */
function chains(rounds: number, x: number, y: number): number {
  let [a, b, c, d, e, f] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
  let [g, h, i, j, k, l] = [0.7, 0.8, 0.9, 1.1, 1.2, 1.3];
  for (let n = 0; n < rounds; n++) {
    a = a * x + y;
    b = b * x + y;
    c = c * x + y;
    d = d * x + y;
    e = e * x + y;
    f = f * x + y;
    g = g * x + y;
    h = h * x + y;
    i = i * x + y;
    j = j * x + y;
    k = k * x + y;
    l = l * x + y;
  }
  return a + b + c + d + e + f + g + h + i + j + k + l;
}

/** The rate of multiply-adds that no plain JavaScript loop on one thread exceeds: nothing is loaded or stored. */
export function multiplyAddLoop(): Entry {
  let sum = 0;
  return {
    name: "js multiply-add loop",
    backend: null,
    work: { "GFLOP/s": 2 * CHAINS * ROUNDS },
    run() {
      sum += chains(ROUNDS, 0.999, 0.001);
    },
    async verify() {
      if (!(sum > 0 && Number.isFinite(sum))) throw new Error(`the multiply-add loop gave ${sum}`);
    },
  };
}

/**
 * A copy that moves `bytes`, those read and those written together, from one array to another: the engine's own
 * memory copy. Counted in "GB/s" and, for the time of work that moves as much, in "ms".
 */
export function memoryCopy(bytes: number): Entry {
  const half = Math.max(1, Math.round(bytes / 2));
  const from = new Uint8Array(half).fill(1);
  const to = new Uint8Array(half);
  return {
    name: "memory copy",
    backend: null,
    work: { "GB/s": 2 * half, ms: 1, "ms/token": 1 },
    run() {
      to.set(from);
    },
  };
}
