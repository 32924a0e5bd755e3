// Layer: apps/cli, report. Runs into one HTML page on disk. Knows no flag.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { loadRun, runNames } from "./load.js";
import { reportPage } from "./page.js";

export interface ReportOptions {
  /** Where the page goes. */
  readonly out: string;
  readonly title?: string;
  /** Names of the runs, in their order; their folders' names unless told. */
  readonly names?: readonly string[];
}

/** Writes a report of runs. @returns the path of the page */
export async function writeReport(folders: readonly string[], { out, title, names }: ReportOptions): Promise<string> {
  const shown = names ?? runNames(folders);
  const runs = await Promise.all(folders.map((folder, i) => loadRun(folder, shown[i])));
  mkdirSync(path.dirname(out), { recursive: true });
  writeFileSync(out, reportPage(runs, { date: new Date(), ...(title !== undefined && { title }) }));
  return out;
}
