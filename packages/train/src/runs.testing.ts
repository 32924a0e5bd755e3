// Layer: train, for tests. Run folders copied, and compared by everything in them that must be reproducible.

import { type FileSystem, joinPath } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { type MetricsLine, readMetrics, readSamples, reproducible, type SampleLine } from "./metrics.js";
import { resolveCheckpoint } from "./runFolder.js";

/** A copy in memory of a folder with all that is in it. */
export async function copyOf(from: FileSystem, folder: string, to = memoryFiles()): Promise<FileSystem> {
  await to.makeDirectory(folder);
  for (const { name, kind } of await from.list(folder)) {
    const path = joinPath(folder, name);
    if (kind === "directory") await copyOf(from, path, to);
    else await (await to.writer(path)).write(await from.read(path));
  }
  return to;
}

export interface RunContent {
  readonly checkpoint: string;
  readonly weights: Uint8Array;
  readonly moments: Uint8Array;
  /** Without wall-clock time. */
  readonly state: unknown;
  readonly metrics: readonly Omit<MetricsLine, "tokensPerSecond" | "time">[];
  readonly samples: readonly SampleLine[];
}

/** What a run left: its last checkpoint bit for bit, and its lines without wall-clock time. */
export async function contentOf(files: FileSystem, run = "run"): Promise<RunContent> {
  const checkpoint = await resolveCheckpoint(files, run);
  const metrics: RunContent["metrics"][number][] = [];
  for await (const line of readMetrics(files, run)) metrics.push(reproducible(line));
  const samples: SampleLine[] = [];
  for await (const line of readSamples(files, run)) samples.push(line);
  const state = JSON.parse(new TextDecoder().decode(await files.read(`${checkpoint}/training/state.json`)));
  return {
    checkpoint,
    weights: await files.read(`${checkpoint}/model.safetensors`),
    moments: await files.read(`${checkpoint}/training/optimizer.safetensors`),
    state: { ...state, seconds: 0 },
    metrics,
    samples,
  };
}

/** Names in a folder. */
export async function namesIn(files: FileSystem, folder: string): Promise<string[]> {
  return (await files.list(folder)).map(({ name }) => name);
}

/** The error that a promise is rejected with. @throws Error if it is not */
export async function errorOf(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("it did not fail");
}

/** Writes a small file. */
export async function put(files: FileSystem, path: string, text: string): Promise<void> {
  const writer = await files.writer(path);
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
}
