// Layer: apps/cli, report. Runs into one HTML page on disk. Knows no flag.
import path from "node:path";
import { writeFileAtomic } from "@diffmamba/files";
import { nodeFiles } from "@diffmamba/files/node";
import { loadRun, runNames } from "./load.js";
import { reportPage } from "./page.js";

export interface ReportOptions {
  /** Where the page goes. */
  readonly out: string;
  readonly title?: string;
  /** Names of the runs, in their order; their folders' names unless told. */
  readonly names?: readonly string[];
}

/** Writes a report of runs. @returns the path of the page @throws FileError, naming it, where it cannot be written */
export async function writeReport(folders: readonly string[], { out, title, names }: ReportOptions): Promise<string> {
  const shown = names ?? runNames(folders);
  const runs = await Promise.all(folders.map((folder, i) => loadRun(folder, shown[i])));
  const files = nodeFiles();
  await files.makeDirectory(path.dirname(out));
  await writeFileAtomic(files, out, reportPage(runs, { date: new Date(), ...(title !== undefined && { title }) }));
  return out;
}
