// Layer: apps/cli, commands. `doctor`: what works on this machine, and for what does not, why.
import { existsSync } from "node:fs";
import os from "node:os";
import process from "node:process";
import type { Command } from "commander";
import { defaultBackend, probeBackends } from "../backends.js";
import type { Context } from "../program.js";

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

interface DataFolder {
  readonly path: string | null;
  readonly exists: boolean;
}

function dataFolder(): DataFolder {
  const path = process.env.DIFFMAMBA_DATA;
  return path === undefined || path === "" ? { path: null, exists: false } : { path, exists: existsSync(path) };
}

const describeData = ({ path, exists }: DataFolder): string =>
  path === null ? "not set: data is found by path alone" : exists ? path : `${path}, which does not exist`;

export function registerDoctor(program: Command, context: Context): void {
  program
    .command("doctor")
    .summary("which backends work here, and for the others why not")
    .description("Tries every backend and looks at this machine.")
    .option("--json", "print one JSON document on stdout")
    .action(
      context.run(async (terminal) => {
        const backends = await probeBackends();
        const data = dataFolder();
        const memory = { total: os.totalmem(), free: os.freemem() };
        const { version } = context;
        const machine = { platform: process.platform, arch: process.arch, cpus: os.availableParallelism(), memory };
        const lines = [
          `diffmamba  ${version}`,
          `Node       ${process.versions.node} on ${process.platform} ${process.arch}`,
          `machine    ${machine.cpus} processors, ${gib(memory.total)} of memory, ${gib(memory.free)} free`,
          `data       DIFFMAMBA_DATA: ${describeData(data)}`,
          "",
          ...backends.map(({ name, available, device, reason }) =>
            available
              ? `  yes  ${name.padEnd(10)} ${device}${name === defaultBackend ? " (the default)" : ""}`
              : `   no  ${name.padEnd(10)} ${reason}`,
          ),
        ];
        terminal.result({ version, node: process.versions.node, ...machine, data, backends }, lines.join("\n"));
      }),
    );
}
