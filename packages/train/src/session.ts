// Layer: train. The beginning and the end of a part of a run: the folder is locked, checked and cleaned, and what was saved is put back.
// Knows the run's folder, its record and its checkpoints. Knows no step.

import type { AdamW, LossScale } from "@diffmamba/nn";
import { readCheckpoint, type TrainingState } from "./checkpoint.js";
import { RunError } from "./errors.js";
import { type JsonObject, toJson } from "./json.js";
import { cutJsonLines } from "./jsonLines.js";
import { pageHost, RunLock } from "./lock.js";
import { readMetrics } from "./metrics.js";
import { freeTraining, type ResolvedOptions, trainingRecord } from "./options.js";
import { checkUnchanged, type RunPart, readRecord, writeRecord } from "./record.js";
import {
  bestFile,
  lastFile,
  lockFile,
  metricsFile,
  pointedStep,
  RunFolder,
  readPointer,
  runFile,
  samplesFile,
} from "./runFolder.js";

/** A locked folder, and where its run stands. */
export interface Session {
  readonly folder: RunFolder;
  readonly lock: RunLock;
  readonly state: TrainingState;
  /** Path of the checkpoint that the run goes on from. */
  readonly resumedFrom?: string;
  /** What is odd but no reason to stop. */
  readonly warnings: readonly string[];
}

/**
 * Locks the folder and makes it ready: for a new run, or, with `resume`, for the steps after the last checkpoint.
 * @throws RunError where the folder holds another run, or one of other settings, or is being written; FileError
 */
export async function openSession(options: ResolvedOptions, optimizer: AdamW, lossScale?: LossScale): Promise<Session> {
  const { files, folder: path, host = pageHost() } = options;
  await files.makeDirectory(path);
  const folder = new RunFolder(files, path);
  const lock = await RunLock.acquire(files, folder.at(lockFile), host);
  try {
    return { folder, lock, ...(await begin(options, folder, optimizer, lossScale)) };
  } catch (error) {
    await lock.release().catch(() => undefined);
    throw error;
  }
}

async function begin(
  options: ResolvedOptions,
  folder: RunFolder,
  optimizer: AdamW,
  lossScale: LossScale | undefined,
): Promise<Pick<Session, "state" | "resumedFrom" | "warnings">> {
  const settings = toJson(options.settings) as JsonObject;
  const training = trainingRecord(options);
  const versions = toJson(options.versions) as JsonObject;
  const part = (step: number): RunPart => ({ step, time: new Date().toISOString(), settings, training, versions });

  if (!(await folder.holdsRun())) {
    await folder.clean();
    await writeRecord(folder, [part(0)]);
    return { state: await freshState(options), warnings: [] };
  }
  if (!options.resume) {
    throw new RunError(folder.path, "holds a run already; resume it, or choose another folder");
  }
  const { parts } = await readRecord(folder);
  const before = parts[parts.length - 1];
  checkUnchanged(folder, before.settings, settings, options.freeSettings);
  checkUnchanged(folder, before.training, training, freeTraining);
  await folder.clean();

  const last = await readPointer(folder.files, folder.at(lastFile));
  const step = last ?? 0;
  if (options.steps < step) {
    throw new RunError(
      folder.path,
      `has ${step} steps done, more than the ${options.steps} asked for; ask for at least ${step}`,
    );
  }
  for (const name of [metricsFile, samplesFile]) await cutJsonLines(folder.files, folder.at(name), step);
  const warnings = await checkSchedule(options, folder, step);
  if (JSON.stringify(before.versions) !== JSON.stringify(versions)) {
    warnings.push(
      "the run goes on with other versions of its libraries than it began with; its numbers may differ in the last digits",
    );
  }
  const state = last === undefined ? await freshState(options) : await restore(options, folder, last, optimizer);
  if (lossScale !== undefined && state.lossScale !== undefined) lossScale.restore(state.lossScale);
  await writeRecord(folder, [...parts, part(step)]);
  return { state, warnings, ...(last !== undefined && { resumedFrom: folder.step(last) }) };
}

async function freshState({ data }: ResolvedOptions): Promise<TrainingState> {
  return { step: 0, tokens: 0, seconds: 0, skipped: 0, best: null, data: toJson(data.state()) };
}

async function restore(
  { files, model, data, groups }: ResolvedOptions,
  folder: RunFolder,
  last: number,
  optimizer: AdamW,
): Promise<TrainingState> {
  const path = folder.step(last);
  const state = await readCheckpoint(files, path, { model, optimizer, groups: groups.length });
  if (state.step !== last)
    throw new RunError(path, `its training state is of step ${state.step}; the folder has been renamed`);
  data.restore(state.data);
  // A run that died between `last` and `best` left the older name in `best`.
  const { best } = state;
  if (best !== null && (await pointedStep(folder, bestFile)) !== best.step) {
    if ((await folder.steps()).includes(best.step)) await folder.point(bestFile, best.step);
  }
  return state;
}

/**
 * A run may go on for longer or shorter, if the learning rates of the steps already taken stay what they were: with a
 * constant rate, or in the stable phase of warm-up, stable, decay; not with a cosine or a line towards another end.
 */
async function checkSchedule({ files, schedule }: ResolvedOptions, folder: RunFolder, step: number): Promise<string[]> {
  let seen = 0;
  for await (const line of readMetrics(files, folder.path)) {
    const now = schedule(line.step - 1);
    if (line.lr !== now) {
      throw new RunError(
        folder.path,
        `cannot go on with this schedule: step ${line.step} was taken at a learning rate of ${line.lr}, and it gives ${now}. ` +
          `Resume with the schedule and the steps in ${runFile}, or start a new run from the checkpoint's weights`,
      );
    }
    seen = line.step;
  }
  if (seen > 0 || step === 0) return [];
  return [`${folder.at(metricsFile)} has no line of the ${step} steps that are done`];
}
