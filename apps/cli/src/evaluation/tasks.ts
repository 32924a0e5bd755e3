// Layer: apps/cli, evaluation. Tasks on a checkpoint: task files, documents, the model behind a cache, and what is written of it.
// Knows the eval package and paths. Knows no flag parser and no stream.
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import {
  cachedModel,
  documentNames,
  type EvaluatedModel,
  exampleSplit,
  fetchDocuments,
  findTasks,
  loadDocuments,
  loadTask,
  measuredSplit,
  recurrentModel,
  runTask,
  type Task,
  type TaskProgress,
  type TaskResult,
  type TaskSample,
} from "@diffmamba/eval";
import { nodeFiles } from "@diffmamba/files/node";
import type { Checkpoint } from "../checkpoint.js";
import { CommandError } from "../errors.js";
import { fingerprint } from "./fingerprint.js";

export interface TaskOptions {
  /** Names and tags, or paths of task files. */
  readonly tasks: readonly string[];
  /** Folder of the documents. */
  readonly data: string | undefined;
  readonly batchSize: number;
  readonly limit: number | undefined;
  readonly numFewshot: number | undefined;
  readonly bootstrap: number;
  readonly seed: number;
  /** Get documents that the folder lacks from the hub. */
  readonly fetching: boolean;
  /** Told what takes a while. */
  readonly onNote: (line: string) => void;
  /** Folder of answers. */
  readonly cache: string | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: TaskProgress) => void;
  readonly onSample?: (task: string, sample: TaskSample) => void;
}

/** A task's result with where its documents are from. */
export interface TaskOutcome extends TaskResult {
  readonly file: string;
  readonly sha256: string;
  /** Documents that the file holds; fewer are asked about where a limit says so. */
  readonly available: number;
}

export interface TasksOutcome {
  readonly results: readonly TaskOutcome[];
  /** Tells the model from every other. */
  readonly fingerprint: string;
}

/** The tasks that names stand for, each once. @throws TaskError, FileError */
async function wantedTasks(names: readonly string[]): Promise<Task[]> {
  const found = new Map<string, Task>();
  for (const name of names) {
    const isFile = /\.ya?ml$/.test(name);
    for (const task of isFile ? [await loadTask(nodeFiles(), name)] : findTasks(name)) {
      found.set(task.name, task);
    }
  }
  return [...found.values()];
}

/** Documents of a split, fetched from the hub where that is allowed and the folder lacks them. */
async function splitOf(folder: string, task: Task, split: string, { fetching, signal, onNote }: TaskOptions) {
  const found = await loadDocuments(nodeFiles(), folder, task, split);
  if (found !== undefined || !fetching) return found;
  const { HF_ENDPOINT: hubUrl, HF_TOKEN: accessToken } = process.env;
  onNote(`${task.name}: fetching its documents (${split}) of ${task.dataset.path ?? "no data set"} into ${folder}`);
  const address = { ...(hubUrl && { hubUrl }), ...(accessToken && { accessToken }) };
  return fetchDocuments(task, folder, { files: nodeFiles(), signal, ...address }, split);
}

async function documentsOf(folder: string | undefined, task: Task, options: TaskOptions) {
  const split = measuredSplit(task);
  const where = `Looked for ${documentNames(task, split)} (or .gz, .xz)`;
  if (folder === undefined) {
    throw new CommandError(
      `${task.name}: where are its documents? Name their folder with --task-data or DIFFMAMBA_DATA.`,
    );
  }
  const found = await splitOf(folder, task, split, options);
  if (found === undefined)
    throw new CommandError(
      `${task.name}: its documents are not in ${folder}. ${where}; --fetch gets them from the hub.`,
    );
  return found;
}

/** Runs tasks, one after another. Documents are looked for before the first is asked about. */
export async function runTasks({ folder, model, tokenizer }: Checkpoint, options: TaskOptions): Promise<TasksOutcome> {
  const tasks = await wantedTasks(options.tasks);
  if (options.data !== undefined && !existsSync(options.data)) {
    if (!options.fetching) throw new CommandError(`${options.data}: no such folder.`);
    await nodeFiles().makeDirectory(options.data);
  }
  const found = new Map<Task, Awaited<ReturnType<typeof documentsOf>>>();
  for (const task of tasks) found.set(task, await documentsOf(options.data, task, options));
  const print = await fingerprint(folder, tokenizer, model.device.name);
  const asked: EvaluatedModel = recurrentModel(model, tokenizer, { batchSize: options.batchSize });
  const cache = options.cache && path.join(options.cache, `${print.slice(0, 16)}.jsonl`);
  const answering = cache ? await cachedModel(asked, { files: nodeFiles(), path: cache, model: print }) : asked;
  const results: TaskOutcome[] = [];
  for (const [task, { documents, file, sha256 }] of found) {
    const { numFewshot, seed, bootstrap, signal, onProgress, onSample } = options;
    const split = exampleSplit(task);
    const wantsExamples = (numFewshot ?? task.fewshot.count) > 0 && split !== undefined && options.data !== undefined;
    const examples = wantsExamples ? await splitOf(options.data as string, task, split, options) : undefined;
    const result = await runTask(answering, task, documents.slice(0, options.limit), {
      seed,
      bootstrap,
      signal,
      onProgress,
      ...(numFewshot !== undefined && { numFewshot }),
      ...(examples && { examples: examples.documents }),
      ...(onSample && { onSample: (sample: TaskSample) => onSample(task.name, sample) }),
    });
    results.push({ ...result, file, sha256, available: documents.length });
  }
  return { results, fingerprint: print };
}
