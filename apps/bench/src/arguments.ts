// Layer: apps/bench. The command line: what it may say, and what it means. Knows suites as names with settings.
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { messageOf, UsageError } from "./errors.js";
import type { Settings, Suite } from "./race.js";

export interface Arguments {
  readonly suites: readonly Suite[];
  /** Sizes by name, over those of the suites. */
  readonly set: Settings;
  readonly json: boolean;
  readonly quick: boolean;
  readonly list: boolean;
  readonly help: boolean;
  readonly backends: readonly string[];
  /** Counts of threads to time with, the least first. */
  readonly threads: readonly number[];
  /** Only cases whose name, shape or threads hold this, in any case. */
  readonly filter: string;
  /** Seconds for a race. */
  readonly budget: number;
}

const QUICK_BUDGET = 0.02;
const BUDGET = 1;

/** What `bench --help` and `bench --list` say of the suites. */
export function listSuites(suites: readonly Suite[]): string {
  const width = Math.max(...suites.map(({ name }) => name.length));
  const lines = suites.flatMap(({ name, summary, settings }) => {
    const sizes = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
    return [`  ${name.padEnd(width)}  ${summary}`, `  ${"".padEnd(width)}  sizes: ${sizes.join(" ")}`];
  });
  return `suites:\n${lines.join("\n")}\n`;
}

export function usage(suites: readonly Suite[]): string {
  return `usage: bench SUITE... [options]
       bench check --backend NAME   (the conformance suite and the goldens; see bench check --help)

  --json             print one JSON array of rows on stdout
  --quick            tiny sizes and few samples: shows that all runs, measures nothing
  --backend NAME     the backend to time (reference by default); a second one is a peer of the first
  --threads LIST     counts of threads for the suite cpu, as in 1,2 (by default one, and all cores)
  --filter TEXT      only cases whose name, shape or threads hold TEXT
  --set KEY=NUMBER   another size, as --list shows them; may be repeated
  --budget SECONDS   time for a case and its peers, warm-up included (${BUDGET} by default; a slow suite takes a multiple)
  --list             list the suites and their sizes
  --help             this text

${listSuites(suites)}`;
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        json: { type: "boolean", default: false },
        quick: { type: "boolean", default: false },
        list: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
        backend: { type: "string", multiple: true, default: [] },
        threads: { type: "string" },
        filter: { type: "string", default: "" },
        set: { type: "string", multiple: true, default: [] },
        budget: { type: "string" },
      },
    });
  } catch (error) {
    throw new UsageError(messageOf(error), { cause: error });
  }
}

function parseSet(entries: readonly string[], suites: readonly Suite[]): Settings {
  const known = new Set(suites.flatMap(({ settings }) => Object.keys(settings)));
  const set: Record<string, number> = {};
  for (const entry of entries) {
    const [key, text, ...rest] = entry.split("=");
    const value = Number(text);
    if (text === undefined || rest.length > 0 || !Number.isSafeInteger(value) || value < 1) {
      throw new UsageError(`--set ${entry}: it must be KEY=NUMBER with a whole number of at least 1.`);
    }
    if (!known.has(key))
      throw new UsageError(`--set ${entry}: there is no size ${key}; there is ${[...known].join(", ")}.`);
    set[key] = value;
  }
  return set;
}

function parseThreads(text: string | undefined, suites: readonly Suite[]): number[] {
  if (text === undefined) return [...new Set([1, availableParallelism()])];
  if (!suites.some(({ backend }) => backend !== undefined)) {
    throw new UsageError(`--threads ${text}: none of the suites that are named opens a backend with threads.`);
  }
  const counts = text.split(",").map(Number);
  if (!counts.every((count) => Number.isSafeInteger(count) && count >= 1 && count <= 1024)) {
    throw new UsageError(`--threads ${text}: it must be whole numbers from 1 to 1024, as in 1,2.`);
  }
  return [...new Set(counts)].sort((a, b) => a - b);
}

/** @throws UsageError for an unknown suite, flag or size, or a value that does not fit */
export function parseArguments(argv: readonly string[], all: readonly Suite[]): Arguments {
  const { values, positionals } = parse(argv);
  const chosen = positionals.map((name) => {
    const suite = all.find((candidate) => candidate.name === name);
    if (suite === undefined) throw new UsageError(`${name}: no such suite.\n\n${listSuites(all)}`);
    return suite;
  });
  const { json, quick, list, help, filter, backend } = values;
  if (chosen.length === 0 && !list && !help) throw new UsageError(`no suite is named.\n\n${usage(all)}`);
  const budget = values.budget === undefined ? (quick ? QUICK_BUDGET : BUDGET) : Number(values.budget);
  if (!(budget > 0 && Number.isFinite(budget))) {
    throw new UsageError(`--budget ${values.budget}: it must be a number of seconds above 0.`);
  }
  const set = parseSet(values.set, chosen);
  const threads = parseThreads(values.threads, chosen);
  return { suites: [...new Set(chosen)], set, json, quick, list, help, backends: backend, threads, filter, budget };
}
