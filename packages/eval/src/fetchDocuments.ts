// Layer: eval. The documents of a task from the Hugging Face hub, kept as JSON lines under the name by which they are found again.
// Knows tasks, and the hub through the data package. Knows no template and no model.
import { type DownloadOptions, fetchHub } from "@diffmamba/datasets";
import { joinPath, writeFileAtomic } from "@diffmamba/files";
import { type Task, TaskError } from "./task.js";
import { measuredSplit, readDocuments, type TaskDocuments } from "./taskDocuments.js";

export interface FetchDocumentsOptions extends DownloadOptions {
  /** For data that wants one. */
  readonly accessToken?: string;
  /** Another address of the hub. */
  readonly hubUrl?: string;
}

/**
 * Fetches a split of a task's data set below a folder, checked where the hub has checksums, and writes it there as
 * `<task>_<split>.jsonl`. A download that was interrupted goes on; nothing is found under that name before it is whole.
 * @throws TaskError where the task names no data set; StoreError, DownloadError, FileError
 */
export async function fetchDocuments(
  task: Task,
  folder: string,
  options: FetchDocumentsOptions,
  split = measuredSplit(task),
): Promise<TaskDocuments> {
  const { files, accessToken, hubUrl, ...rest } = options;
  const { path: repo, name } = task.dataset;
  if (repo === undefined) throw new TaskError(`${task.name}: it names no data set (dataset_path) to be fetched.`);
  const hub = {
    repo,
    ...(name !== undefined && { config: name }),
    ...(accessToken !== undefined && { accessToken }),
    ...(hubUrl !== undefined && { hubUrl }),
    ...(rest.fetch && { fetch: rest.fetch }),
  };
  const found = await fetchHub(hub, [split], joinPath(folder, "hub", repo), { files, ...rest });
  const lines: string[] = [];
  for (const path of found[split]) {
    for (const document of (await readDocuments(files, path)).documents) lines.push(`${JSON.stringify(document)}\n`);
  }
  const file = joinPath(folder, `${task.name}_${split}.jsonl`);
  await writeFileAtomic(files, file, lines.join(""));
  return readDocuments(files, file);
}
