// Layer: apps/cli. The errors of the command line, the exit code of each, and how they are shown. Knows no command.
import { CommanderError } from "commander";

export const exitCodes = { ok: 0, failure: 1, usage: 2 } as const;

/** What was asked for cannot be: an unknown flag, setting or preset, or a value that does not fit. Exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What was asked for did not work. Exit code 1. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/** A signal stopped what was asked for, and there is no result. Exit code 130 or 143. */
export class StoppedError extends Error {
  override readonly name = "StoppedError";
  constructor(
    message: string,
    readonly exitCode: number,
  ) {
    super(message);
  }
}

/** The exit code that an error ends the program with. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return exitCodes.usage;
  if (error instanceof StoppedError) return error.exitCode;
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  return exitCodes.failure;
}

/** The message of an error and those of its causes that it does not repeat. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === "") return error.errors.map(messageOf).join("\n");
  if (error instanceof Error) return error.message === "" ? error.name : error.message;
  return String(error);
}

/** An error as it is shown: its message, and with `debug` its stack and causes. */
export function formatError(error: unknown, debug: boolean): string {
  if (!debug || !(error instanceof Error)) return `error: ${messageOf(error)}\n`;
  const causes: string[] = [];
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) causes.push(`caused by ${cause.stack}`);
  return [`error: ${messageOf(error)}`, error.stack, ...causes, ""].join("\n");
}
