// Layer: apps/cli, demo. One training run in a process of its own, watched through the files that it writes.
// Knows the train command and its files. Knows no other run.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { nodeFiles } from "@diffmamba/files/node";
import { type Evaluation, type MetricsLine, metricsFile, readMetrics } from "@diffmamba/train";
import { CommandError } from "../errors.js";
import { readRunFile, type Start, startFile } from "../training/files.js";

const main = fileURLToPath(new URL("../main.js", import.meta.url));

/** What `train --json` prints. */
export interface TrainResult {
  readonly parameters: number;
  readonly stopped: "finished" | "signal";
  readonly step: number;
  readonly checkpoint?: string;
  readonly initial?: Evaluation;
  readonly evaluation?: Evaluation;
}

export class TrainChild {
  readonly #process: ChildProcess;
  #stdout = "";
  #stderr = "";
  /** How it ended; rejects with what it said where it failed. */
  readonly result: Promise<TrainResult>;

  /**
   * Starts `diffmamba train`. The process has a group of its own: Ctrl-C on the terminal reaches it only through `stop`, once.
   * @param args flags of `train` but --out and --json
   */
  constructor(
    readonly name: string,
    readonly folder: string,
    args: readonly string[],
  ) {
    this.#process = spawn(process.execPath, [main, "train", ...args, "--out", folder, "--json"], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
    });
    this.#process.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-4000);
    });
    this.result = new Promise((resolve, reject) => {
      this.#process.on("error", (cause) =>
        reject(new CommandError(`${name} could not be started: ${cause.message}`, { cause })),
      );
      this.#process.on("close", (code, signal) => {
        const document = this.#document();
        if (document !== undefined && (code === 0 || document.stopped === "signal")) resolve(document);
        else
          reject(
            new CommandError(`the run ${name} ended with ${signal ?? `exit code ${code}`}:\n${this.#stderr.trimEnd()}`),
          );
      });
    });
    // Whoever waits gets it; until somebody does it is no unhandled one.
    this.result.catch(() => undefined);
  }

  #document(): TrainResult | undefined {
    try {
      return JSON.parse(this.#stdout) as TrainResult;
    } catch {
      return undefined;
    }
  }

  /** Asks it to save and to stop. */
  stop(): void {
    if (this.#process.exitCode === null) this.#process.kill("SIGTERM");
  }

  /** Ends it at once. */
  kill(): void {
    if (this.#process.exitCode === null) this.#process.kill("SIGKILL");
  }

  /** What was known before its first step, once it has got there. */
  async start(): Promise<Start | undefined> {
    try {
      return await readRunFile<Start>(this.folder, startFile);
    } catch {
      return undefined;
    }
  }

  /** The last line of its metrics, and the last evaluation. */
  async latest(): Promise<{ line: MetricsLine | undefined; evaluation: Evaluation | undefined }> {
    let line: MetricsLine | undefined;
    let evaluation: Evaluation | undefined;
    if (existsSync(path.join(this.folder, metricsFile))) {
      for await (line of readMetrics(nodeFiles(), this.folder)) evaluation = line.eval ?? evaluation;
    }
    return { line, evaluation };
  }
}
