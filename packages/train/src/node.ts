// Layer: train, the Node entry: who we are for the lock of a run, stop signals, and progress on a terminal.
// Knows processes and terminals. Knows no model and no step.

import { readFileSync } from "node:fs";
import os from "node:os";
import cliProgress from "cli-progress";
import type { TrainEvent } from "./events.js";
import type { LockHolder, LockHost } from "./lock.js";
import { eventText, stepText } from "./progress.js";

/** When a process started, in a form that no other process of its number shares; undefined where the platform does not tell. */
function startOf(pid: number): string | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    // Field 22 of stat, counted behind the name, which may hold anything (proc(5)).
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}-${started}`;
  } catch {
    return undefined;
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // No permission to signal it: it lives, and is another user's.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * This process, for the lock of a run's folder. A holder on another machine counts as alive; one on this machine is dead when
 * its process is gone, or (on Linux) when its number has gone to a later process.
 */
export function nodeHost(): LockHost {
  const host = os.hostname();
  const { pid } = process;
  const instance = `${pid}-${startOf(pid) ?? performance.timeOrigin}`;
  return {
    pid,
    host,
    instance,
    isAlive(holder: LockHolder) {
      if (holder.host !== host) return true;
      if (holder.pid === pid) return holder.instance === instance;
      if (!runs(holder.pid)) return false;
      const started = startOf(holder.pid);
      return started === undefined || holder.instance === `${holder.pid}-${started}`;
    },
  };
}

/** Exit codes of a process that a signal ended. */
const stopCodes = { SIGINT: 130, SIGTERM: 143 } as const;
export type StopSignal = keyof typeof stopCodes;

export interface StopSignals extends Disposable {
  /** Aborted by the first signal; for `Trainer.run`. */
  readonly signal: AbortSignal;
  /** The first signal, once it has come. */
  readonly received: StopSignal | undefined;
  /** 130 or 143 once a signal has come: what the process should exit with. */
  readonly exitCode: number | undefined;
  /** Listens no longer. */
  dispose(): void;
}

/**
 * SIGINT and SIGTERM as an AbortSignal: the first one asks to stop, a second one exits at once with 130 or 143.
 * @param onStop called at the first one, to say that the step is being finished
 */
export function stopSignals({ onStop }: { readonly onStop?: (signal: StopSignal) => void } = {}): StopSignals {
  const controller = new AbortController();
  let received: StopSignal | undefined;
  const listen = (signal: NodeJS.Signals) => {
    const stop = signal as StopSignal;
    if (received !== undefined) process.exit(stopCodes[stop]);
    received = stop;
    controller.abort(new Error(`stopped by ${stop}`));
    onStop?.(stop);
  };
  for (const signal of Object.keys(stopCodes)) process.on(signal, listen);
  const dispose = () => {
    for (const signal of Object.keys(stopCodes)) process.off(signal, listen);
  };
  return {
    signal: controller.signal,
    get received() {
      return received;
    },
    get exitCode() {
      return received && stopCodes[received];
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}

export interface ProgressOptions {
  /**
   * "auto": a bar on a terminal, else plain lines; "lines": plain lines, a step's at most every few seconds; "silent": nothing.
   */
  readonly style?: "auto" | "lines" | "silent";
  /** stderr by default, so that stdout stays free for results. */
  readonly stream?: NodeJS.WritableStream & { readonly isTTY?: boolean };
  /** Seconds between two plain lines of steps; 5 by default. */
  readonly every?: number;
}

/** Shows a run's events; for `onEvent` of a trainer. */
export function showProgress({
  style = "auto",
  stream = process.stderr,
  every = 5,
}: ProgressOptions = {}): (event: TrainEvent) => void {
  if (style === "silent") return () => undefined;
  if (style === "auto" && stream.isTTY) return barProgress(stream);
  let shown = Number.NEGATIVE_INFINITY;
  return (event) => {
    if (event.type === "step") {
      const now = performance.now();
      if (now - shown < every * 1000 && event.step !== event.steps) return;
      shown = now;
    }
    const text = eventText(event);
    if (text !== undefined) stream.write(`${text}\n`);
  };
}

function barProgress(stream: NodeJS.WritableStream): (event: TrainEvent) => void {
  const bar = new cliProgress.SingleBar({
    format: "step {value}/{total} {bar} {numbers}",
    barsize: 20,
    barCompleteChar: "\u2588",
    barIncompleteChar: "\u2591",
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false,
    stream,
  });
  let step = 0;
  let steps = 0;
  let numbers = "";
  const show = () => bar.start(steps, step, { numbers });
  return (event) => {
    if (event.type === "step") {
      step = event.step;
      numbers = stepText(event);
      bar.update(step, { numbers });
      return;
    }
    const text = eventText(event);
    if (event.type === "start") {
      stream.write(`${text}\n`);
      ({ step, steps } = event);
      show();
    } else if (event.type === "end") {
      bar.stop();
      if (text !== undefined) stream.write(`${text}\n`);
    } else if (text !== undefined) {
      // The bar makes room for the line and comes back below it.
      bar.stop();
      stream.write(`${text}\n`);
      show();
    }
  };
}
