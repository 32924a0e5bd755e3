// Layer: apps/cli, report. From a run's folder to what a report shows of it: its record, its metrics and its samples.
// Knows run folders. Knows no chart and no page.
import { existsSync } from "node:fs";
import path from "node:path";
import { nodeFiles } from "@diffmamba/files/node";
import { metricsFile, readMetrics, readRunRecord, readSamples, runFile } from "@diffmamba/train";
import { CommandError } from "../errors.js";
import { flatSettings } from "../settings/resolve.js";
import { readRunFile, type Start, startFile } from "../training/files.js";
import type { LambdaCurve, Point, RunData, Sample } from "./runData.js";

/** Reads a run. @throws CommandError where the folder is none; RunError, FileError naming a damaged file */
export async function loadRun(folder: string, name: string): Promise<RunData> {
  if (!existsSync(folder)) throw new CommandError(`${folder}: no such folder.`);
  if (!existsSync(path.join(folder, runFile))) {
    throw new CommandError(
      `${folder}: holds no run (no ${runFile}). A report wants the folder that train --out was given.`,
    );
  }
  const files = nodeFiles();
  const { parts } = await readRunRecord(files, folder);
  const start = await readRunFile<Start>(folder, startFile);
  const heldOut: Point[] = start?.evaluation ? [{ step: 0, value: start.evaluation.loss }] : [];
  const train: Point[] = [];
  const curves = new Map<number, Point[]>();
  let [tokens, seconds] = [0, 0];
  for await (const line of existsSync(path.join(folder, metricsFile)) ? readMetrics(files, folder) : []) {
    const { step, loss, lambda, eval: evaluation } = line;
    if (loss !== null) train.push({ step, value: loss });
    if (evaluation) heldOut.push({ step, value: evaluation.loss });
    for (const { layer, value } of lambda ?? []) {
      const curve = curves.get(layer) ?? [];
      curves.set(layer, curve);
      curve.push({ step, value });
    }
    tokens = line.tokens;
    seconds = line.time;
  }
  const samples: Sample[] = [];
  for await (const { step, prompt = "", text } of readSamples(files, folder)) samples.push({ step, prompt, text });
  const lambdas: LambdaCurve[] = [...curves].sort(([a], [b]) => a - b).map(([layer, points]) => ({ layer, points }));
  return {
    name,
    settings: flatSettings(parts[parts.length - 1].settings),
    parameters: start?.parameters,
    backend: start?.backend ?? "unknown",
    symbols: start?.symbols ?? "token",
    train,
    heldOut,
    lambdas,
    samples,
    ...(seconds > 0 && { tokensPerSecond: tokens / seconds, seconds }),
  };
}

/** Short names for run folders, all different: their last parts, as many as it takes. */
export function runNames(folders: readonly string[]): string[] {
  const parts = folders.map((folder) => path.resolve(folder).split(path.sep).filter(Boolean));
  for (let length = 1; ; length++) {
    const names = parts.map((part) => part.slice(-length).join("/"));
    if (new Set(names).size === names.length) return names;
    if (parts.every((part) => part.length <= length)) return names.map((name, i) => `${name} (${i + 1})`);
  }
}
