// Layer: apps/cli, commands. `report`: runs, or losses by position, into one HTML page.
import { statSync } from "node:fs";
import path from "node:path";
import type { Command } from "commander";
import { UsageError } from "../errors.js";
import { addJsonOption } from "../options.js";
import type { Context } from "../program.js";
import type { Terminal } from "../terminal.js";

interface ReportFlags {
  readonly out?: string;
  readonly title?: string;
}

const isFile = (name: string): boolean => statSync(name, { throwIfNoEntry: false })?.isFile() === true;

/** The page of results of `eval --by-position`. */
async function reportPositions(
  terminal: Terminal,
  names: readonly string[],
  { out, title }: ReportFlags,
): Promise<void> {
  const { readPositions, writePositions } = await import("../report/positions.js");
  const results = await Promise.all(names.map(readPositions));
  const shown = names.map((name) => path.basename(name, ".json"));
  const unique = new Set(shown).size === shown.length ? shown : names;
  const file = out ?? `${names[0].replace(/\.json$/, "")}.html`;
  await writePositions(results, unique, { out: file, ...(title !== undefined && { title }) });
  terminal.result({ report: file, positions: names }, file);
}

async function run(terminal: Terminal, folders: readonly string[], { out, title }: ReportFlags): Promise<void> {
  const files = folders.filter(isFile);
  if (files.length > 0 && files.length < folders.length) {
    throw new UsageError("report takes folders of runs, or files of eval --by-position, not both at once.");
  }
  if (files.length > 0) return reportPositions(terminal, files, { ...(out && { out }), ...(title && { title }) });
  // Loaded when it is wanted: drawing takes a library that no other command should wait for.
  const { writeReport } = await import("../report/index.js");
  const file = out ?? path.join(folders[0], "report.html");
  const report = await writeReport(folders, { out: file, ...(title !== undefined && { title }) });
  terminal.result({ report, runs: folders }, report);
}

export function registerReport(program: Command, context: Context): void {
  const command = program
    .command("report")
    .argument("<run...>", "folders of runs, or files that eval --by-position --out has written")
    .summary("one HTML page with the curves, lambdas, settings and samples of runs")
    .description(
      "Writes one self-contained HTML page: loss curves, the lambda of each layer over time, settings and samples; of files of\n" +
        "eval --by-position, the loss at each position.",
    )
    .option("--out <file>", "the page (default: report.html in the first run's folder)")
    .option("--title <text>", "the page's heading");
  addJsonOption(command).action(context.run(run));
}
