// Layer: train. The layout of a run's folder: its record, its checkpoints, and the small files `last` and `best` that name two of them.
// A checkpoint exists once `last` (or an earlier `last`) has named it. Knows files. Knows no model, no optimizer and no loop.

import {
  baseName,
  FileError,
  type FileSystem,
  joinPath,
  parentPath,
  readText,
  writeFileAtomic,
} from "@diffmamba/files";
import { RunError } from "./errors.js";

export const runFile = "run.json";
export const lockFile = "lock";
/** Holds the name of the newest checkpoint. */
export const lastFile = "last";
/** Holds the name of the checkpoint with the best evaluation. */
export const bestFile = "best";
/** What a checkpoint holds besides the model's folder. */
export const trainingFolder = "training";

export const metricsFile = "metrics.jsonl";
export const samplesFile = "samples.jsonl";
const runFiles: readonly string[] = [runFile, lastFile, bestFile, metricsFile, samplesFile];

const stepPattern = /^step-(\d+)$/;

/** The name of the checkpoint after so many steps. */
export function stepName(step: number): string {
  return `step-${step}`;
}

/** The step of a checkpoint's name, undefined where it is none. */
export function stepOf(name: string): number | undefined {
  const digits = stepPattern.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

async function isFile(files: FileSystem, path: string): Promise<boolean> {
  return (await files.stat(path))?.kind === "file";
}

/**
 * The checkpoint that `last` or `best` names, checked to be there.
 * @returns its step, or undefined where there is no such file
 * @throws RunError naming the file
 */
export async function readPointer(files: FileSystem, pointer: string): Promise<number | undefined> {
  if (!(await isFile(files, pointer))) return undefined;
  const name = (await readText(files, pointer)).trim();
  const step = stepOf(name);
  if (step === undefined) {
    throw new RunError(
      pointer,
      `it holds ${JSON.stringify(name.slice(0, 40))}; expected the name of a checkpoint such as step-100`,
    );
  }
  const folder = joinPath(parentPath(pointer), name);
  if ((await files.stat(folder))?.kind !== "directory") {
    throw new RunError(
      pointer,
      `it names ${folder}, which does not exist; write the name of a checkpoint that does into it`,
    );
  }
  return step;
}

/**
 * The model folder that a checkpoint argument means: a run folder means its last checkpoint, its `best` file the best one; a
 * checkpoint or any other model folder means itself.
 * @throws RunError naming the path, and what was looked for
 */
export async function resolveCheckpoint(files: FileSystem, path: string): Promise<string> {
  const kind = (await files.stat(path))?.kind;
  if (kind === undefined) throw new RunError(path, "no such checkpoint: nothing is there");
  if (kind === "file") {
    const isPointer = [lastFile, bestFile].includes(baseName(path));
    const step = isPointer ? await readPointer(files, path) : undefined;
    if (step === undefined)
      throw new RunError(path, "a file; a checkpoint is a folder: that of a run, or of one of its steps");
    return joinPath(parentPath(path), stepName(step));
  }
  if (/^step-\d+\.tmp$/.test(baseName(path))) {
    throw new RunError(path, "a checkpoint that was never finished; use one without .tmp, or the run's folder");
  }
  const step = await readPointer(files, joinPath(path, lastFile));
  if (step !== undefined) return joinPath(path, stepName(step));
  if (await isFile(files, joinPath(path, "config.json"))) return path;
  if (await isFile(files, joinPath(path, runFile))) {
    throw new RunError(path, "a run that has saved no checkpoint yet; it has no file `last`");
  }
  throw new RunError(
    path,
    "neither a run folder (with a file `last`) nor a model folder (with config.json); give the folder of a run or of one of its steps",
  );
}

/** A run's folder while it is being written. */
export class RunFolder {
  constructor(
    readonly files: FileSystem,
    readonly path: string,
  ) {}

  at(name: string): string {
    return joinPath(this.path, name);
  }

  step(step: number): string {
    return this.at(stepName(step));
  }

  /** Whether there is anything in it that a run writes. */
  async holdsRun(): Promise<boolean> {
    const entries = await this.files.list(this.path);
    return entries.some(({ name }) => runFiles.includes(name) || stepOf(name) !== undefined);
  }

  /** Removes what a run that died left half-written. */
  async clean(): Promise<void> {
    for (const { name } of await this.files.list(this.path)) {
      const stem = name.endsWith(".tmp") ? name.slice(0, -".tmp".length) : "";
      if (stepOf(stem) !== undefined || [runFile, lastFile, bestFile].includes(stem))
        await this.files.remove(this.at(name));
    }
  }

  /** Steps of the folders named as checkpoints, smallest first. */
  async steps(): Promise<number[]> {
    const entries = await this.files.list(this.path);
    const steps = entries.flatMap(({ name, kind }) => (kind === "directory" ? [stepOf(name)] : []));
    return steps.filter((step): step is number => step !== undefined).sort((a, b) => a - b);
  }

  /**
   * Makes a checkpoint appear in one step: `fill` writes into `step-N.tmp`, which becomes `step-N`, which `last` then names.
   * Until that moment the checkpoint before is the last one. @throws whatever `fill` throws; FileError
   */
  async publish(step: number, fill: (folder: string) => Promise<void>): Promise<void> {
    const { files } = this;
    const folder = this.step(step);
    const temporary = `${folder}.tmp`;
    await files.remove(temporary);
    await files.makeDirectory(temporary);
    try {
      await fill(temporary);
    } catch (error) {
      // Where the disk is full, its part of the space is given back.
      await files.remove(temporary).catch(() => undefined);
      throw error;
    }
    await files.syncDirectory(temporary);
    // One of the same step that a run which died left here, never named by `last`.
    if ((await files.stat(folder)) !== undefined) await files.remove(folder);
    await files.rename(temporary, folder);
    try {
      await files.syncDirectory(this.path);
      await this.point(lastFile, step);
    } catch (error) {
      // Never named, so it does not exist: its space is given back too.
      const named = await pointedStep(this, lastFile).catch(() => step);
      if (named !== step) await files.remove(folder).catch(() => undefined);
      throw error;
    }
  }

  /** Writes `last` or `best`. */
  async point(pointer: typeof lastFile | typeof bestFile, step: number): Promise<void> {
    await writeFileAtomic(this.files, this.at(pointer), `${stepName(step)}\n`);
  }

  /** Removes all checkpoints but the `keepLast` newest up to `last` and those named. */
  async prune(last: number, keepLast: number, named: readonly number[]): Promise<void> {
    const steps = await this.steps();
    const newest = steps.filter((step) => step <= last).slice(-Math.max(1, keepLast));
    for (const step of steps) {
      if (!newest.includes(step) && !named.includes(step)) await this.files.remove(this.step(step));
    }
  }
}

/** The step that a file of the run points to, or undefined where it does not or points nowhere. */
export async function pointedStep(
  folder: RunFolder,
  pointer: typeof lastFile | typeof bestFile,
): Promise<number | undefined> {
  try {
    return await readPointer(folder.files, folder.at(pointer));
  } catch (error) {
    if (error instanceof FileError) throw error;
    return undefined;
  }
}
