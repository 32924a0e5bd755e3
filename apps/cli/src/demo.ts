// Layer: apps/cli, demo. Trains a vanilla Mamba-2 and a differential one of equal width and state side by side, a process each, on text
// that is always there, and writes the report. Knows the train command by its files. Promises no winner.
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { prepareText, type TokenStore } from "@diffmamba/datasets";
import { nodeFiles } from "@diffmamba/files/node";
import { readSamples } from "@diffmamba/train";
import { Command } from "commander";
import { chooseDevice, type DeviceChoice, type DeviceFlags, openDevice } from "./backends.js";
import { TrainChild, type TrainResult } from "./demo/child.js";
import { demoCorpus } from "./demo/corpus.js";
import { watch } from "./demo/watch.js";
import { CommandError, exitCodeOf, formatError } from "./errors.js";
import { addBackendOptions, wholeNumber } from "./options.js";
import { writeReport } from "./report/index.js";
import { presets } from "./settings/presets.js";
import { count } from "./text.js";

interface DemoFlags extends DeviceFlags {
  readonly out?: string;
  readonly steps?: number;
  readonly seed: number;
}

const models = [
  { name: "mamba2", title: "Mamba-2", preset: "demo-mamba2" },
  { name: "diffmamba2", title: "Diff-Mamba-2", preset: "demo-diffmamba2" },
] as const;

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const note = (text: string): void => void process.stderr.write(`${text}\n`);

/** The preset of a model on a backend: the reference gets a small one, which it trains in a minute. */
const presetOn = (backend: string, preset: string): string => (backend === "reference" ? `${preset}-small` : preset);

/** What each run computes on, tried before they start; says so. */
async function choose(flags: DemoFlags): Promise<DeviceChoice> {
  const choice = chooseDevice(flags, note, models.length);
  await using device = await openDevice(choice);
  say(`Backend: ${device.name}; each of the two runs has ${device.backend.device}.`);
  return choice;
}

/** `runs/demo`, or the first `runs/demo-2`, `-3`, … that is not there yet. */
function freshFolder(): string {
  const names = Array.from({ length: 1000 }, (_, i) => path.join("runs", i === 0 ? "demo" : `demo-${i + 1}`));
  const free = names.find((name) => !existsSync(name));
  if (free === undefined) throw new CommandError("runs: there are a thousand demos here; remove some.");
  return free;
}

async function prepare(folder: string): Promise<TokenStore> {
  const files = nodeFiles();
  await files.makeDirectory(folder);
  const store = await prepareText({
    files,
    source: demoCorpus(),
    out: path.join(folder, "data"),
    name: "TypeScript's lib.*.d.ts",
    splits: { valid: { fraction: 0.1 } },
  });
  const [train, valid] = [store.split("train").length, store.split("valid").length];
  say(`Text: ${store.name}, ${count(train)} characters to train on, the last ${count(valid)} held out.`);
  say(
    `Vocabulary: ${store.vocabSize} characters; to guess blindly costs log2 ${store.vocabSize} = ${Math.log2(store.vocabSize).toFixed(3)} bits each.\n`,
  );
  return store;
}

/** Starts both runs; Ctrl-C stops both, a second one at once. */
function startRuns(
  folder: string,
  { backend, threads }: DeviceChoice,
  { steps, seed }: DemoFlags,
): { runs: TrainChild[]; stopped: () => boolean } {
  const flags = ["--data", path.join(folder, "data"), "--seed", String(seed), "--backend", backend];
  if (threads !== undefined) flags.push("--threads", String(threads));
  if (steps !== undefined) flags.push("--steps", String(steps));
  const runs = models.map(
    ({ name, preset }) =>
      new TrainChild(name, path.join(folder, name), ["--preset", presetOn(backend, preset), ...flags]),
  );
  let signals = 0;
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    process.on(signal, () => {
      if (signals++ > 0) {
        for (const run of runs) run.kill();
        process.exit(code);
      }
      process.exitCode = code;
      for (const run of runs) run.stop();
    });
  }
  process.on("exit", () => {
    for (const run of runs) run.kill();
  });
  return { runs, stopped: () => signals > 0 };
}

/** Both results; where one run fails the other is stopped. */
async function resultsOf(runs: readonly TrainChild[]): Promise<TrainResult[]> {
  for (const run of runs) {
    run.result.catch(() => {
      for (const other of runs) other.stop();
    });
  }
  const settled = await Promise.allSettled(runs.map(({ result }) => result));
  return settled.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
}

function table(results: readonly TrainResult[], heldOut: number): string {
  const bits = (nats: number | undefined) => (nats === undefined ? "–" : (nats / Math.LN2).toFixed(3));
  const rows = [
    ["", "parameters", "before", "after"],
    ...results.map(({ parameters, initial, evaluation }, i) => [
      models[i].title,
      count(parameters),
      bits(initial?.loss),
      bits(evaluation?.loss),
    ]),
  ];
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i] + 3))).join(""),
  );
  return [
    `Held-out loss in bits per character (${count(heldOut)} characters, spread over the held-out text):`,
    ...lines,
  ].join("\n");
}

async function samples(runs: readonly TrainChild[]): Promise<string> {
  const parts: string[] = [];
  for (const [i, run] of runs.entries()) {
    let last: { prompt?: string; text: string } | undefined;
    for await (last of readSamples(nodeFiles(), run.folder));
    if (last === undefined) continue;
    const text = `${last.prompt ?? ""}${last.text}`;
    parts.push(`${models[i].title} goes on:\n${text.replace(/^/gm, "  | ")}\n`);
  }
  return parts.join("\n");
}

async function demo(flags: DemoFlags): Promise<void> {
  const folder = flags.out ?? freshFolder();
  if (existsSync(folder)) throw new CommandError(`${folder}: something is already there; choose another folder.`);
  const choice = await choose(flags);
  await prepare(folder);
  const { runs, stopped } = startRuns(folder, choice, flags);
  const results = resultsOf(runs);
  const steps = flags.steps ?? (presets[presetOn(choice.backend, models[0].preset)].train.steps as number);
  await watch(runs, steps, results);
  const outcome = await results;
  if (stopped()) {
    say("Stopped. What was trained is saved; each run goes on with:");
    for (const run of runs) say(`  npx diffmamba train --resume --out ${run.folder}`);
    return;
  }
  say("");
  say(table(outcome, outcome[0].evaluation?.tokens ?? 0));
  say("\nTwo short runs of small models do not tell which of the two is better.\n");
  say(await samples(runs));
  const report = await writeReport(
    runs.map((run) => run.folder),
    {
      out: path.join(folder, "report.html"),
      title: "Mamba-2 and Diff-Mamba-2, side by side",
      names: models.map(({ title }) => title),
    },
  );
  say(`Report: ${path.resolve(report)}`);
}

const command = new Command("demo")
  .description("Trains a vanilla Mamba-2 and a differential one side by side on the text of TypeScript's declarations.")
  .option("--out <folder>", "where the runs and the report go (default: runs/demo)")
  .option("--steps <n>", "steps of each", wholeNumber(1))
  .option("--seed <n>", "of both", wholeNumber(0), 0)
  .action(demo);
addBackendOptions(command);

try {
  await command.exitOverride().parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
  const isCommander = error instanceof Error && error.name === "CommanderError";
  if (!isCommander) process.stderr.write(formatError(error, Boolean(process.env.DIFFMAMBA_DEBUG)));
}
