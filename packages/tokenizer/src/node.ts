// Layer: tokenizer, the Node entry. Counting words and encoding texts on several threads, by a pool of workers.
// Knows no text and no file of a user's.
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import Tinypool from "tinypool";
import type { WordCounter, WordCounts } from "./bpe.js";
import type { Encoded, TextsEncoder } from "./encode-texts.js";
import type { Tokenizer } from "./tokenizer.js";
import type { PoolData, Task } from "./work.js";

export interface PoolOptions {
  /**
   * Workers; as many as there are processors unless told, but no more than 4, since each holds the vocabulary and a cache of its own (about
   * 130 MB with GPT-NeoX's). The result is the same with any number.
   */
  readonly threads?: number;
  /** The workers' script, where it is not beside this file: a bundled program brings its own copy of `dist/work.js`. */
  readonly script?: string;
}

/** The workers' script: beside this file where it is built; sources, which no worker can run, take the built one. */
function scriptPath(): string {
  const beside = fileURLToPath(new URL("./work.js", import.meta.url));
  if (existsSync(beside)) return beside;
  const built = fileURLToPath(new URL("../dist/work.js", import.meta.url));
  if (existsSync(built)) return built;
  throw new Error(
    `${built} is missing: workers run the built package. Build it with \`npm run build\`; a bundled program names it with "script".`,
  );
}

function openPool(
  workerData: PoolData,
  { threads = Math.min(4, availableParallelism()), script }: PoolOptions,
): Tinypool {
  if (!Number.isSafeInteger(threads) || threads < 1) {
    throw new RangeError(`"threads" wants a whole number above 0, got ${threads}`);
  }
  return new Tinypool({
    filename: script ?? scriptPath(),
    workerData,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker: 1,
    execArgv: [], // a test runner's flags and loaders are not for the built script
    trackUnmanagedFds: false,
  });
}

/** Counts words on several threads, for `trainBpe`. Dispose it when done (`await using`). */
export function wordCounter(options: PoolOptions = {}): WordCounter & AsyncDisposable {
  const pool = openPool({}, options);
  return {
    size: pool.options.maxThreads,
    count: (text) => pool.run({ kind: "count", text } satisfies Task) as Promise<WordCounts>,
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}

/** Encodes texts on several threads. Dispose it when done (`await using`). */
export function textsEncoder(tokenizer: Tokenizer, options: PoolOptions = {}): TextsEncoder & AsyncDisposable {
  const pool = openPool({ tokenizer: tokenizer.toJSON() }, options);
  return {
    size: pool.options.maxThreads,
    encode: (texts) => pool.run({ kind: "encode", texts } satisfies Task) as Promise<Encoded>,
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}
