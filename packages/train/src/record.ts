// Layer: train. run.json: what a run is (settings, versions, when), and what a continuation of it may change.
// Knows files and settings as JSON. Knows no setting by name, no model and no loop.

import { type FileSystem, readJson, writeFileAtomic } from "@diffmamba/files";
import { RunError } from "./errors.js";
import { type Difference, differences, isObject, type Json, type JsonObject, shownJson } from "./json.js";
import { RunFolder, runFile } from "./runFolder.js";

const FORMAT = "diffmamba-run";

/** Settings, versions and the day, as they were when a part of the run began. */
export interface RunPart {
  /** Steps done before. */
  readonly step: number;
  /** ISO 8601. */
  readonly time: string;
  /** The caller's settings. */
  readonly settings: JsonObject;
  /** What the trainer itself was told: steps, intervals, micro-batches, clipping, optimizer. */
  readonly training: JsonObject;
  /** Versions of the libraries. */
  readonly versions: JsonObject;
}

/** What run.json holds. */
export interface RunRecord {
  readonly format: typeof FORMAT;
  readonly version: 1;
  /** The first part, then one for each continuation. */
  readonly parts: readonly RunPart[];
}

export async function writeRecord(folder: RunFolder, parts: readonly RunPart[]): Promise<void> {
  const record: RunRecord = { format: FORMAT, version: 1, parts };
  await writeFileAtomic(folder.files, folder.at(runFile), `${JSON.stringify(record, null, 2)}\n`);
}

/** What run.json of a run's folder holds. @throws RunError, FileError naming the file */
export function readRunRecord(files: FileSystem, run: string): Promise<RunRecord> {
  return readRecord(new RunFolder(files, run));
}

/** The record of a run. @throws RunError, FileError naming the file */
export async function readRecord(folder: RunFolder): Promise<RunRecord> {
  const path = folder.at(runFile);
  const json = await readJson(folder.files, path);
  const parts = isObject(json) && json.format === FORMAT && Array.isArray(json.parts) ? json.parts : [];
  if (!isObject(json) || parts.length === 0 || !parts.every(isPart)) {
    throw new RunError(path, `it does not describe a run: expected "format": "${FORMAT}" and a list "parts"`);
  }
  if (json.version !== 1) {
    throw new RunError(path, `its "version" is ${shownJson(json.version as Json)}; this package reads version 1`);
  }
  return json as unknown as RunRecord;
}

function isPart(part: unknown): boolean {
  return isObject(part) && isObject(part.settings) && isObject(part.training) && isObject(part.versions);
}

/** How many differences a message lists. */
const LISTED = 6;

/**
 * Refuses to go on with settings that would make another run of it.
 * @param free paths of members that may differ, such as `steps`; what lies below them may too
 * @throws RunError listing what differs
 */
export function checkUnchanged(folder: RunFolder, before: JsonObject, now: JsonObject, free: readonly string[]): void {
  const isFree = ({ path }: Difference) => free.some((name) => path === name || path.startsWith(`${name}.`));
  const changed = differences(before, now).filter((difference) => !isFree(difference));
  if (changed.length === 0) return;
  const shown = changed
    .slice(0, LISTED)
    .map(({ path, before: was, now: is }) => `${path} was ${shownJson(was)} and is ${shownJson(is)}`);
  const more = changed.length > LISTED ? ` (and ${changed.length - LISTED} more)` : "";
  throw new RunError(
    folder.path,
    `cannot go on with other settings: ${shown.join("; ")}${more}. Resume with the settings in ${runFile}, or start a new run in another folder`,
  );
}
