// Layer: train, for tests. The program of child.testing.ts as one file that Node runs, and processes of it.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { build } from "esbuild";

export interface Child {
  readonly process: ChildProcess;
  readonly lines: readonly string[];
  /** Resolves with the first line that holds a text. @throws Error where the process ends before */
  line(text: string): Promise<string>;
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
}

export interface Bundle {
  /** A folder of its own, removed at the end. */
  readonly folder: string;
  /** The program's file. */
  readonly program: string;
  /** Starts it; `node` may put arguments before the program, or another command before Node. */
  start(args: readonly string[], nodeArgs?: readonly string[]): Child;
  /** Starts any command. */
  spawn(command: string, args: readonly string[]): Child;
  dispose(): void;
}

export async function bundleChild(): Promise<Bundle> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-train-"));
  const program = path.join(folder, "child.mjs");
  await build({
    entryPoints: [path.join(import.meta.dirname, "child.testing.ts")],
    outfile: program,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    conditions: ["@diffmamba/source"],
    banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
    logLevel: "silent",
  });
  const children: ChildProcess[] = [];
  const start = (command: string, args: readonly string[]): Child => {
    const child = spawn(command, args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
    children.push(child);
    return watched(child);
  };
  return {
    folder,
    program,
    start: (args, nodeArgs = []) => start(process.execPath, [...nodeArgs, program, ...args]),
    spawn: start,
    dispose() {
      for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function watched(child: ChildProcess): Child {
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  let rest = "";
  let over = false;
  const wake = () => {
    for (const look of waiting) look();
  };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
    wake();
  });
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.on("close", (code, signal) => {
      over = true;
      wake();
      resolve(code ?? signal);
    });
  });
  const line = (text: string) =>
    new Promise<string>((resolve, reject) => {
      const look = () => {
        const found = lines.find((one) => one.includes(text));
        if (found === undefined && !over) return;
        waiting.delete(look);
        if (found !== undefined) resolve(found);
        else reject(new Error(`the process ended without a line with ${text}:\n${lines.slice(-5).join("\n")}`));
      };
      waiting.add(look);
      look();
    });
  return { process: child, lines, line, ended };
}
