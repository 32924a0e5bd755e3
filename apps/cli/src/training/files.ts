// Layer: apps/cli, training. The files that the command line adds to a run's folder: what was planned, where it began, and in every
// checkpoint the settings. Knows files and settings. Knows no model.
import { existsSync } from "node:fs";
import path from "node:path";
import { readJson, writeFileAtomic } from "@diffmamba/files";
import { nodeFiles } from "@diffmamba/files/node";
import type { Evaluation } from "@diffmamba/train";

/** In a run's folder: the settings, from before its first step on. */
export const planFile = "plan.json";
/** In a run's folder: what was known when it began. */
export const startFile = "start.json";
/** In a run's folder: the token store, where one was made. */
export const dataFolder = "data";
/** In a checkpoint: the settings of the run that it is of. */
export const settingsFile = "diffmamba_settings.json";

/** Settings as they are written down: those of a run, whole, with where they came from. */
export interface Plan {
  readonly [group: string]: unknown;
  readonly preset?: string;
  /** Path of the data. */
  readonly dataPath?: string;
}

/** What was known when a run began. */
export interface Start {
  readonly parameters: number;
  readonly vocabSize: number;
  /** What a token is, where it is something plain. */
  readonly symbols: "character" | "byte" | "token";
  readonly backend: string;
  /** Of the weights before the first step. */
  readonly evaluation?: Evaluation;
}

export async function writeRunFile(folder: string, name: string, content: object): Promise<void> {
  await writeFileAtomic(nodeFiles(), path.join(folder, name), `${JSON.stringify(content, null, 2)}\n`);
}

/** A file of a run or checkpoint, or undefined where it has none. @throws FileError where it holds no JSON */
export async function readRunFile<T extends object>(folder: string, name: string): Promise<T | undefined> {
  const file = path.join(folder, name);
  if (!existsSync(file)) return undefined;
  const content = await readJson(nodeFiles(), file);
  return typeof content === "object" && content !== null && !Array.isArray(content) ? (content as T) : undefined;
}
