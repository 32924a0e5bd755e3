// Layer: apps/cli, settings. A settings file, JSON or YAML by its name, and by its content where the name says nothing.
// Knows files. Knows no setting.
import { readFileSync } from "node:fs";
import path from "node:path";
import { parse } from "yaml";
import { CommandError, UsageError } from "../errors.js";
import type { SettingsSource } from "./resolve.js";

/** Reads a settings file. @throws CommandError where it cannot be read; UsageError where it holds no settings */
export function readSettingsFile(file: string): SettingsSource {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const cause = code === "ENOENT" ? "no such file" : code === "EISDIR" ? "it is a folder" : (error as Error).message;
    throw new CommandError(`${file}: the settings cannot be read: ${cause}.`, { cause: error });
  }
  const isJson = path.extname(file).toLowerCase() === ".json";
  let values: unknown;
  try {
    values = isJson ? JSON.parse(text) : parse(text);
  } catch (error) {
    const [line] = (error as Error).message.split("\n");
    throw new CommandError(`${file}: this is not ${isJson ? "JSON" : "YAML"}: ${line.replace(/:$/, "")}.`, {
      cause: error,
    });
  }
  if (values === null || values === undefined) values = {};
  if (typeof values !== "object" || Array.isArray(values)) {
    throw new UsageError(
      `${file}: expected settings, names with values, but it holds ${Array.isArray(values) ? "a list" : `a ${typeof values}`}.`,
    );
  }
  return { label: (key) => `${file}: ${key}`, values: values as Record<string, unknown> };
}
