// Layer: eval. The documents of a task from a folder: JSON lines, packed or not, or parquet, found by the names that the task gives or
// by its own.
// Knows tasks and files, these through the file interface. Knows no template and no model.
import { fileSource } from "@diffmamba/datasets";
import { type FileSystem, joinPath } from "@diffmamba/files";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { readParquet } from "./parquetDocuments.js";
import { type Task, TaskError } from "./task.js";
import type { Document } from "./template.js";

/** Documents and where they are from. */
export interface TaskDocuments {
  readonly documents: readonly Document[];
  /** Path of the file. */
  readonly file: string;
  /** SHA-256 of its content, unpacked. */
  readonly sha256: string;
}

const endings = ["", ".gz", ".xz"];

/** The split that a task is measured on. */
export const measuredSplit = ({ splits: { test, validation, training } }: Task): string =>
  test ?? validation ?? training ?? "test";

/** The split that a task takes its examples from, where it names one that is not the measured one. */
export function exampleSplit(task: Task): string | undefined {
  const split = task.fewshot.split ?? task.splits.training ?? task.splits.validation;
  return split === measuredSplit(task) ? undefined : split;
}

/** Names that a file of a split may have, in the order in which they are looked for. */
function candidates(task: Task, split: string): string[] {
  const own = split === measuredSplit(task) ? [...task.files, `${task.name}.jsonl`] : [];
  const lines = [...own, `${task.name}_${split}.jsonl`, `${task.name}/${split}.jsonl`];
  return [...lines.flatMap((name) => endings.map((ending) => name + ending)), `${task.name}/${split}.parquet`];
}

/** A parquet file, or one of JSON objects, one a line. @throws FileError; TaskError naming the file and the line */
export async function readDocuments(files: FileSystem, path: string): Promise<TaskDocuments> {
  if (path.endsWith(".parquet")) {
    const documents = await readParquet(files, path);
    return { documents, file: path, sha256: bytesToHex(sha256(await files.read(path))) };
  }
  const hash = sha256.create();
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of fileSource(files, path).open()) {
    hash.update(bytes);
    text += decoder.decode(bytes, { stream: true });
  }
  text += decoder.decode();
  const documents = text.split("\n").flatMap((line, i): Document[] => {
    if (line.trim() === "") return [];
    try {
      const value: unknown = JSON.parse(line);
      if (typeof value === "object" && value !== null && !Array.isArray(value)) return [value as Document];
    } catch (error) {
      throw new TaskError(`${path}: line ${i + 1} is no JSON: ${(error as Error).message}.`);
    }
    throw new TaskError(`${path}: line ${i + 1} holds no JSON object.`);
  });
  return { documents, file: path, sha256: bytesToHex(hash.digest()) };
}

/** The documents of a split of a task, or undefined where the folder has none. @throws as {@link readDocuments} */
export async function loadDocuments(
  files: FileSystem,
  folder: string,
  task: Task,
  split = measuredSplit(task),
): Promise<TaskDocuments | undefined> {
  for (const name of candidates(task, split)) {
    const path = joinPath(folder, name);
    if ((await files.stat(path))?.kind === "file") return readDocuments(files, path);
  }
  return undefined;
}

/** Where documents of a task are looked for, for messages. */
export const documentNames = (task: Task, split = measuredSplit(task)): string =>
  candidates(task, split)
    .filter((name) => /\.(jsonl|parquet)$/.test(name))
    .join(", ");
