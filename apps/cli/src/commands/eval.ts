// Layer: apps/cli, commands. `eval`: how well a checkpoint predicts a text, position by position where asked, and how it does on tasks.
import path from "node:path";
import process from "node:process";
import type { Batching, TaskSample } from "@diffmamba/eval";
import { writeFileAtomic } from "@diffmamba/files";
import { nodeFiles } from "@diffmamba/files/node";
import { stopSignals } from "@diffmamba/train/node";
import { type Command, Option } from "commander";
import { chooseDevice, type DeviceFlags, openDevice } from "../backends.js";
import { type Checkpoint, type CheckpointFlags, openCheckpoint } from "../checkpoint.js";
import { UsageError } from "../errors.js";
import { commit } from "../evaluation/fingerprint.js";
import { tasksTable } from "../evaluation/table.js";
import { runTasks } from "../evaluation/tasks.js";
import { positionList, scorePositions, scoreText, textTable } from "../evaluation/text.js";
import { addBackendOptions, addJsonOption, wholeNumber } from "../options.js";
import type { Context } from "../program.js";
import { showTask } from "../progress.js";
import type { PositionFile } from "../report/positions.js";
import { stoppedError } from "../stopped.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";

interface EvalFlags extends CheckpointFlags, DeviceFlags {
  readonly data?: string;
  readonly split?: string;
  readonly length?: number;
  readonly batchSize?: number;
  readonly batching?: Batching;
  readonly maxTokens?: number;
  readonly byPosition?: number;
  readonly documents?: number;
  readonly plot?: string;
  readonly tasks?: string;
  readonly taskData?: string;
  readonly fetch?: boolean;
  readonly limit?: number;
  readonly numFewshot?: number;
  readonly bootstrap?: number;
  readonly seed?: number;
  readonly cache?: string;
  readonly samples?: string;
  readonly out?: string;
}

/** Flags by what they go with. */
const modes = {
  "--data": ["split", "length", "batching", "maxTokens"],
  "--by-position": ["split", "length", "documents", "plot"],
  "--tasks": ["taskData", "fetch", "limit", "numFewshot", "bootstrap", "seed", "cache", "samples"],
} as const satisfies Record<string, readonly (keyof EvalFlags)[]>;

type Mode = keyof typeof modes;

const flagName = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** @throws UsageError where flags do not go together */
function modeOf(flags: EvalFlags): Mode {
  if (flags.tasks !== undefined && (flags.data !== undefined || flags.byPosition !== undefined)) {
    throw new UsageError("eval takes --data, a text, or --tasks, not both at once.");
  }
  if (flags.tasks === undefined && flags.data === undefined) {
    throw new UsageError("eval wants --data, a text to score, or --tasks, the names of tasks.");
  }
  const mode: Mode =
    flags.tasks !== undefined ? "--tasks" : flags.byPosition !== undefined ? "--by-position" : "--data";
  const own: readonly string[] = modes[mode];
  const other = Object.values(modes)
    .flat()
    .find((name) => flags[name] !== undefined && !own.includes(name));
  if (other !== undefined) throw new UsageError(`${flagName(other)} does not go with ${mode}.`);
  return mode;
}

async function write(file: string, content: object): Promise<void> {
  await nodeFiles().makeDirectory(path.dirname(file));
  await writeFileAtomic(nodeFiles(), file, `${JSON.stringify(content, null, 1)}\n`);
}

/** What every result says of itself. */
interface About {
  readonly checkpoint: Checkpoint;
  readonly version: string;
  readonly started: Date;
}

const aboutOf = ({ checkpoint, version, started }: About) => ({
  checkpoint: checkpoint.folder,
  parameters: checkpoint.model.parameterCount(),
  backend: checkpoint.model.device.name,
  versions: { "@diffmamba/cli": version, node: process.version },
  commit: commit(),
  started: started.toISOString(),
  seconds: (Date.now() - started.getTime()) / 1000,
});

async function evalText(terminal: Terminal, about: About, flags: EvalFlags, signal: AbortSignal): Promise<void> {
  const { data = "", batching = "windows", out } = flags;
  const { result, length, batchSize } = await scoreText(
    terminal,
    about.checkpoint,
    { ...flags, data, batching },
    signal,
  );
  const { lossByPosition, ...scores } = result;
  const document = {
    checkpoint: about.checkpoint.folder,
    data,
    ...scores,
    length,
    batchSize,
    batching,
    lossByPosition,
  };
  if (out !== undefined) await write(out, { ...aboutOf(about), ...document });
  terminal.result(document, textTable(result));
}

async function evalPositions(terminal: Terminal, about: About, flags: EvalFlags, signal: AbortSignal): Promise<void> {
  const { data = "", byPosition = 1, out, plot } = flags;
  const { positionFormat, writePositions } = await import("../report/positions.js");
  const asked = { ...flags, data, byPosition, batching: "windows" as const };
  const result = await scorePositions(terminal, about.checkpoint, asked, signal);
  const document: PositionFile = {
    format: positionFormat,
    ...aboutOf(about),
    data,
    length: byPosition,
    ...result,
    loss: [...result.loss],
  };
  if (out !== undefined) await write(out, document);
  if (plot !== undefined) await writePositions([document], [path.basename(about.checkpoint.folder)], { out: plot });
  const lines = [
    `documents            ${count(result.documents)} of ${count(byPosition + 1)} tokens`,
    `loss                 ${result.nll.toFixed(4)} nats a token`,
    `loss by position     ${positionList(result.loss)}`,
    ...(plot === undefined ? [] : [`plot                 ${plot}`]),
  ];
  terminal.result({ ...document, ...(plot !== undefined && { plot }) }, lines.join("\n"));
}

async function evalTasks(terminal: Terminal, about: About, flags: EvalFlags, signal: AbortSignal): Promise<void> {
  const { limit, numFewshot, bootstrap = 1000, seed = 0, batchSize = 16, cache, samples, out } = flags;
  const names = (flags.tasks ?? "").split(",").map((name) => name.trim());
  const progress = showTask(terminal);
  const answers: (TaskSample & { readonly task: string })[] = [];
  const { results, fingerprint } = await runTasks(about.checkpoint, {
    tasks: names.filter((name) => name !== ""),
    data: flags.taskData ?? process.env.DIFFMAMBA_DATA,
    ...{ batchSize, limit, numFewshot, bootstrap, seed, cache, signal },
    fetching: flags.fetch === true,
    onNote: terminal.note,
    onProgress: progress.show,
    ...(samples !== undefined && { onSample: (task: string, sample: TaskSample) => answers.push({ task, ...sample }) }),
  }).finally(progress.end);
  if (samples !== undefined) {
    await nodeFiles().makeDirectory(path.dirname(samples));
    await writeFileAtomic(nodeFiles(), samples, answers.map((answer) => `${JSON.stringify(answer)}\n`).join(""));
  }
  const document = { ...aboutOf(about), model: fingerprint, seed, bootstrap, batchSize, tasks: results };
  if (out !== undefined) await write(out, document);
  terminal.result(document, tasksTable(results));
}

async function run(terminal: Terminal, version: string, flags: EvalFlags): Promise<void> {
  const mode = modeOf(flags);
  using stop = stopSignals();
  await using device = await openDevice(chooseDevice(flags, terminal.note));
  const checkpoint = await openCheckpoint(flags, device);
  using _model = checkpoint.model;
  const about: About = { checkpoint, version, started: new Date() };
  const kept =
    flags.cache === undefined ? "nothing was scored" : `answers are kept in ${flags.cache}; the same command goes on`;
  const evaluations = { "--data": evalText, "--by-position": evalPositions, "--tasks": evalTasks };
  await evaluations[mode](terminal, about, flags, stop.signal).catch((error) => {
    throw stoppedError(error, stop, kept);
  });
}

export function registerEval(program: Command, context: Context): void {
  const command = program
    .command("eval")
    .summary("perplexity of a text, loss by position, and standard tasks")
    .description(
      "With --data, scores a text in non-overlapping windows of the training length, each from a zero state; N tokens give N - 1\n" +
        "scores. A file is scored whole, a token store by its test split. With --by-position, reads long documents of that text with\n" +
        "the state carried from window to window. With --tasks, asks the model about the documents of standard tasks.",
    )
    .requiredOption("--checkpoint <folder>", "a run, one of its step-N folders, or any Hugging Face model folder")
    .option("--data <data>", "a file, a token store, or a name in the folder DIFFMAMBA_DATA")
    .option("--split <name>", "which split of a store (default: test, or the last one)")
    .option("--length <n>", "tokens of a window (default: as trained)", wholeNumber(1))
    .option("--batch-size <n>", "rows at once (default: as trained; 16 for tasks)", wholeNumber(1))
    .addOption(
      new Option("--batching <how>", "windows side by side, or the paper's contiguous rows (default: windows)").choices(
        ["windows", "rows"],
      ),
    )
    .option("--max-tokens <n>", "score about so many tokens, in windows spread over the text", wholeNumber(1))
    .option("--by-position <n>", "mean loss at each of the first n positions of documents", wholeNumber(1))
    .option("--documents <n>", "with --by-position: so many documents (default: all)", wholeNumber(1))
    .option("--plot <file>", "with --by-position: an HTML page with the curve; report compares several")
    .option("--tasks <names>", "tasks by name or tag, or YAML files, with commas between: lambada,piqa,arc,./mine.yaml")
    .option("--task-data <folder>", "folder with the tasks' documents as JSON lines (default: DIFFMAMBA_DATA)")
    .option("--fetch", "get documents that the folder lacks from the Hugging Face hub (HF_ENDPOINT, HF_TOKEN)")
    .option("--limit <n>", "ask about the first n documents of each task", wholeNumber(1))
    .option("--num-fewshot <n>", "examples before each document (default: as the task says)", wholeNumber(0))
    .option("--bootstrap <n>", "resamplings behind errors and intervals (default: 1000)", wholeNumber(0))
    .option("--seed <n>", "of examples, draws and the bootstrap (default: 0)", wholeNumber(0))
    .option("--cache <folder>", "keep answers there: an evaluation that was stopped goes on, and none is asked twice")
    .option("--samples <file>", "write what was answered about each document, as JSON lines")
    .option("--out <file>", "write the result there as JSON")
    .option("--tokenizer <path>", "a folder or file with the tokenizer (default: the checkpoint's)");
  addBackendOptions(command);
  addJsonOption(command).action(context.run((terminal, flags: EvalFlags) => run(terminal, context.version, flags)));
}
