// Layer: eval. The tasks that come with the package, and folders of others, by name.
// Knows task files by the file interface. Knows no document and no model.
import { baseName, type FileSystem, joinPath, parentPath, readText } from "@diffmamba/files";
import { parseTask, type Task, TaskError } from "./task.js";
import { taskTexts } from "./taskFiles.generated.js";

let shipped: readonly Task[] | undefined;

/** The tasks that come with the package; read when they are first asked for. */
export function shippedTasks(): readonly Task[] {
  const include = (name: string) => (Object.hasOwn(taskTexts, name) ? taskTexts[name] : undefined);
  shipped ??= Object.entries(taskTexts).map(([file, text]) => parseTask(text, file, include));
  return shipped;
}

/** Reads a task file of one's own; `include` finds the files beside it and those of the package. @throws FileError, TaskError */
export async function loadTask(files: FileSystem, path: string): Promise<Task> {
  const folder = parentPath(path);
  const beside = new Map<string, string>(Object.entries(taskTexts));
  for (const { name, kind } of await files.list(folder)) {
    if (kind === "file" && /\.ya?ml$/.test(name)) beside.set(name, await readText(files, joinPath(folder, name)));
  }
  return parseTask(await readText(files, path), baseName(path), (name) => beside.get(name));
}

/**
 * The tasks that a name stands for: a task's own name, or a tag of several.
 * @throws TaskError naming those there are
 */
export function findTasks(name: string, tasks: readonly Task[] = shippedTasks()): Task[] {
  const found = tasks.filter((task) => task.name === name);
  if (found.length > 0) return found;
  const tagged = tasks.filter(({ tags }) => tags.includes(name));
  if (tagged.length > 0) return tagged;
  const names = [...new Set(tasks.flatMap((task) => [task.name, ...task.tags]))].sort();
  throw new TaskError(`there is no task "${name}"; there are ${names.join(", ")}.`);
}
