// Layer: apps/cli, for tests. The real command in processes of its own, or in this one, in a temporary folder, on text that the test
// makes itself. Wants the build: dist/main.js. Knows no command.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";

const app = path.join(import.meta.dirname, "..");

/** The launcher's file. */
export const program = path.join(app, "bin/diffmamba.js");

export interface Outcome {
  /** Exit code, or the signal that ended it. */
  readonly code: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Started {
  readonly process: ChildProcess;
  readonly ended: Promise<Outcome>;
}

export interface Workplace {
  /** A folder of its own, in which commands run; removed at the end. */
  readonly folder: string;
  at(...parts: string[]): string;
  /** Writes a file below the folder. */
  write(name: string, content: string | Uint8Array): void;
  read(name: string): Buffer;
  /** Starts `diffmamba ARGS`. */
  start(args: readonly string[], env?: NodeJS.ProcessEnv): Started;
  /** `diffmamba ARGS` to its end. */
  run(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Outcome>;
  /**
   * `diffmamba ARGS` to its end in this process, where it does not have to start first. For what ends soon and leaves nothing running;
   * one at a time, since it takes over the streams, the folder and the environment of the process.
   */
  here(args: readonly string[]): Promise<Outcome>;
  /** The document that `diffmamba ARGS --json` prints. @throws Error with stderr where it fails or prints something else */
  json<T = Record<string, unknown>>(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<T>;
  /** Any command to its end. */
  shell(command: string, args: readonly string[]): Promise<Outcome>;
  dispose(): void;
}

/** The environment of commands: this process's, but for what would change what they say. */
function environment(): NodeJS.ProcessEnv {
  const { DIFFMAMBA_DATA: _, DIFFMAMBA_DEBUG: __, ...inherited } = process.env;
  // Several commands run at once, of models for which one thread is enough.
  return { ...inherited, NO_COLOR: "1", DIFFMAMBA_THREADS: "1" };
}

/** A command line in this process, as if in one of its own. */
async function runHere(args: readonly string[], folder: string): Promise<Outcome> {
  const { main } = await import("./program.js");
  const output = { stdout: "", stderr: "" };
  const { env, exitCode } = process;
  const [cwd, listeners] = [process.cwd(), process.stdout.listeners("error")];
  const streams = ["stdout", "stderr"] as const;
  const writes = streams.map((name) => process[name].write);
  for (const name of streams) {
    process[name].write = (text: string | Uint8Array) => {
      output[name] += String(text);
      return true;
    };
  }
  process.env = environment();
  process.chdir(folder);
  try {
    const code = await main(args);
    return { code: code === 0 ? Number(process.exitCode ?? 0) : code, ...output };
  } finally {
    for (const [i, name] of streams.entries()) process[name].write = writes[i];
    for (const listener of process.stdout.listeners("error")) {
      if (!listeners.includes(listener)) process.stdout.off("error", listener as (error: Error) => void);
    }
    process.chdir(cwd);
    Object.assign(process, { env, exitCode });
  }
}

export function workplace(): Workplace {
  if (!existsSync(path.join(app, "dist/main.js"))) {
    throw new Error(
      "apps/cli/dist/main.js is missing: these tests run the built command; build it with `npm run setup`.",
    );
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-cli-"));
  const children = new Set<ChildProcess>();
  const at = (...parts: string[]) => path.join(folder, ...parts);
  const launch = (command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Started => {
    const child = spawn(command, args, {
      cwd: folder,
      env: { ...environment(), ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.add(child);
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const ended = new Promise<Outcome>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => {
        children.delete(child);
        resolve({ code: code ?? signal, stdout, stderr });
      });
    });
    return { process: child, ended };
  };
  const start = (args: readonly string[], env?: NodeJS.ProcessEnv) => launch(process.execPath, [program, ...args], env);
  return {
    folder,
    at,
    write: (name, content) => writeFileSync(at(name), content),
    read: (name) => readFileSync(at(name)),
    start,
    run: (args, env) => start(args, env).ended,
    here: (args) => runHere(args, folder),
    shell: (command, args) => launch(command, args).ended,
    async json<T>(args: readonly string[], env?: NodeJS.ProcessEnv) {
      const { code, stdout, stderr } = await start([...args, "--json"], env).ended;
      if (code !== 0) throw new Error(`diffmamba ${args.join(" ")} ended with ${code}:\n${stderr}`);
      // One document and a line's end: JSON.parse refuses a second one.
      return JSON.parse(stdout) as T;
    },
    dispose() {
      for (const child of children) child.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Text of words that a small model can learn something of: about `characters` of them, the same every time. */
export function someText(characters: number): string {
  const words = ["the", "state", "of", "a", "space", "differs", "from", "its", "noise", "and", "naïve", "scans"];
  let text = "";
  for (let state = 1; text.length < characters; ) {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    const word = words[(state >> 16) % words.length];
    text += `${word}${(state >> 8) % 9 === 0 ? ".\n" : " "}`;
  }
  return text;
}

/** Flags of a model and a run of which a step takes milliseconds. */
export const smallest: readonly string[] = [
  ...["--preset", "tiny"],
  ...[
    "dModel=16",
    "headDim=8",
    "dState=4",
    "batchSize=2",
    "length=16",
    "evalTokens=64",
    "sampleTokens=0",
    "saveEvery=5",
  ].flatMap((setting) => ["--set", setting]),
];
