// Layer: apps/cli. Flags that several commands share, and how their values are read. Knows no command.
import { type Command, InvalidArgumentError } from "commander";
import { backendNames, defaultBackend } from "./backends.js";

/** Reads a whole number of at least `min`. */
export const wholeNumber =
  (min: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isSafeInteger(value) || value < min) {
      throw new InvalidArgumentError(`It must be a whole number of at least ${min}.`);
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

export function addBackendOption(command: Command): Command {
  return command.option("--backend <name>", `what computes: ${backendNames.join(", ")} (default: ${defaultBackend})`);
}

export function addJsonOption(command: Command): Command {
  return command.option("--json", "print one JSON document on stdout, everything else on stderr");
}
