// Layer: apps/cli. What becomes of an error that a stop by a signal has caused. Knows signals and errors. Knows no command.
import type { StopSignals } from "@diffmamba/train/node";
import { messageOf, StoppedError } from "./errors.js";

/** The error of a stop, where one was asked for, with what it means for the result; else the error as it is. */
export function stoppedError(error: unknown, stop: StopSignals, meaning: string): unknown {
  const isStop = stop.exitCode !== undefined && error === stop.signal.reason;
  return isStop ? new StoppedError(`${messageOf(error)}; ${meaning}`, stop.exitCode) : error;
}
