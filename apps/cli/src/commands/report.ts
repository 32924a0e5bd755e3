// Layer: apps/cli, commands. `report`: runs into one HTML page.
import path from "node:path";
import type { Command } from "commander";
import { addJsonOption } from "../options.js";
import type { Context } from "../program.js";
import type { Terminal } from "../terminal.js";

interface ReportFlags {
  readonly out?: string;
  readonly title?: string;
}

async function run(terminal: Terminal, folders: readonly string[], { out, title }: ReportFlags): Promise<void> {
  // Loaded when it is wanted: drawing takes a library that no other command should wait for.
  const { writeReport } = await import("../report/index.js");
  const file = out ?? path.join(folders[0], "report.html");
  const report = await writeReport(folders, { out: file, ...(title !== undefined && { title }) });
  terminal.result({ report, runs: folders }, report);
}

export function registerReport(program: Command, context: Context): void {
  const command = program
    .command("report")
    .argument("<run...>", "folders of runs")
    .summary("one HTML page with the curves, lambdas, settings and samples of runs")
    .description(
      "Writes one self-contained HTML page: loss curves, the lambda of each layer over time, settings and samples.",
    )
    .option("--out <file>", "the page (default: report.html in the first run's folder)")
    .option("--title <text>", "the page's heading");
  addJsonOption(command).action(context.run(run));
}
