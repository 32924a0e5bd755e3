// Layer: apps/bench, peers. Limits of this machine as native code meets them, on any number of threads: multiply-adds in
// registers, memory read, memory copied. Each may be absent, where the bench's addon cannot be built.
// Knows arithmetic and memory. Knows no tensor.
import { alignedFloats, native } from "../native.js";
import type { Entry, Peer } from "../race.js";

/** Multiply-adds of each chain in one run: some milliseconds, beside which starting a thread is nothing. */
const ROUNDS = 1 << 21;

/** What one run moves at least, for the same reason. */
const RUN_BYTES = 1 << 26;

const F32_BYTES = 4;

/** "multiply-add loop, 2 threads" */
function named(name: string, threads: number): string {
  return threads === 1 ? name : `${name}, ${threads} threads`;
}

/** The rate of multiply-adds in vector registers: nothing is loaded or stored. */
export function multiplyAdd(threads: number): Peer {
  const name = named("multiply-add loop", threads);
  return {
    name,
    async open(): Promise<Entry> {
      const { multiplyAdd: run, lanes, chains } = native();
      let sum = 0;
      return {
        name,
        backend: null,
        work: { "GFLOP/s": 2 * lanes * chains * ROUNDS * threads },
        run() {
          sum += run(ROUNDS, threads);
        },
        async verify() {
          if (!(sum > 0 && Number.isFinite(sum))) throw new Error(`the multiply-add loop gave ${sum}`);
        },
      };
    },
  };
}

/** Work of moving `bytes`, `times` over. */
function moved(bytes: number, times: number): Entry["work"] {
  return { "GB/s": bytes * times, ms: times, "ms/token": times };
}

/** Reads `bytes` again and again: from the caches where they fit. */
export function memoryRead(bytes: number, threads: number): Peer {
  const name = named("memory read", threads);
  return {
    name,
    async open(): Promise<Entry> {
      const { read } = native();
      const from = alignedFloats(Math.ceil(bytes / F32_BYTES));
      const times = Math.ceil(RUN_BYTES / from.byteLength);
      return { name, backend: null, work: moved(from.byteLength, times), run: () => read(from, times, threads) };
    },
  };
}

/** Which of two ways is the faster one, by three runs of each. */
function faster(run: (way: boolean) => void): boolean {
  const best = { false: Number.POSITIVE_INFINITY, true: Number.POSITIVE_INFINITY };
  for (let i = 0; i < 6; i++) {
    const [way, started] = [i % 2 === 1, performance.now()];
    run(way);
    best[`${way}`] = Math.min(best[`${way}`], performance.now() - started);
  }
  return best.true < best.false;
}

/** A copy that moves `bytes`, those read and those written together: through the caches or past them, what is faster. */
export function memoryCopied(bytes: number, threads: number): Peer {
  const name = named("memory copy", threads);
  return {
    name,
    async open(): Promise<Entry> {
      const { copy } = native();
      const from = alignedFloats(Math.ceil(bytes / 2 / F32_BYTES));
      const to = alignedFloats(from.length);
      const times = Math.ceil(RUN_BYTES / (2 * from.byteLength));
      const run = (pastCaches: boolean) => copy(to, from, times, threads, pastCaches);
      const pastCaches = faster(run);
      return { name, backend: null, work: moved(2 * from.byteLength, times), run: () => run(pastCaches) };
    },
  };
}
