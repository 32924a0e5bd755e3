// Layer: apps/cli. Flags that several commands share, and how their values are read. Knows no command.
import { type Command, InvalidArgumentError } from "commander";
import { backendNames, defaultBackend, maxThreads } from "./backends.js";

/** Reads a whole number from `min` to `max`. */
export const wholeNumber =
  (min: number, max = Number.POSITIVE_INFINITY) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isSafeInteger(value) || value < min || value > max) {
      const wanted = max === Number.POSITIVE_INFINITY ? `of at least ${min}` : `from ${min} to ${max}`;
      throw new InvalidArgumentError(`It must be a whole number ${wanted}.`);
    }
    return value;
  };

/** Reads a number from `min` to `max`. */
export const numberBetween =
  (min: number, max = Number.POSITIVE_INFINITY) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= min && value <= max) || !Number.isFinite(value)) {
      throw new InvalidArgumentError(
        `It must be a number ${max === Number.POSITIVE_INFINITY ? `of at least ${min}` : `from ${min} to ${max}`}.`,
      );
    }
    return value;
  };

/** Gathers a flag that may be given more than once. */
export const gather = (text: string, before: readonly string[] = []): readonly string[] => [...before, text];

export function addBackendOptions(command: Command): Command {
  return command
    .option(
      "--backend <name>",
      `what computes: ${backendNames.join(", ")} (default: ${defaultBackend}, where it works)`,
    )
    .option(
      "--threads <n>",
      "threads of the backend cpu; the result is the same with any number (default: DIFFMAMBA_THREADS, or the processors)",
      wholeNumber(1, maxThreads),
    );
}

export function addJsonOption(command: Command): Command {
  return command.option("--json", "print one JSON document on stdout, everything else on stderr");
}
