// Layer: apps/cli, settings. From a preset, a file and --set to whole settings: merged in that order, checked, and every complaint
// names the place that the wrong thing came from. Knows settings by the schema. Knows no run.
import { modelConfig } from "@diffmamba/models";
import { parse } from "yaml";
import { UsageError } from "../errors.js";
import { didYouMean, nearest } from "../suggest.js";
import { type Settings, settingNames, settingsSchema, shortNames } from "./schema.js";

/** Some settings and where they are from, as messages name it: "--set dModel=64", "run.yaml", "preset tiny". */
export interface SettingsSource {
  /** How messages name a setting of this source, given as it was written. */
  label(key: string): string;
  /** Settings by their names as they were written: dotted, short, or nested. */
  readonly values: { readonly [key: string]: unknown };
}

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The full name of a setting as it was written. @throws UsageError naming the nearest one */
export function settingName(key: string, label: string): string {
  if (settingNames.includes(key)) return key;
  const meant = shortNames.get(key) ?? [];
  if (meant.length === 1) return meant[0];
  if (meant.length > 1) throw new UsageError(`${label}: this may be ${meant.join(" or ")}; write the whole name.`);
  // A wrong key is compared with names of its own form: dotted with dotted, short with short.
  const candidates = key.includes(".") ? settingNames : shortNames.keys();
  throw new UsageError(`${label}: no such setting.${didYouMean(key, candidates)}`);
}

const groupNames = new Set(settingNames.filter((name) => name.includes(".")).map((name) => name.split(".")[0]));

/** One level of groups opened: `{ model: { dModel: 64 } }` is `{ "model.dModel": 64 }`. */
function opened(source: SettingsSource): [key: string, value: unknown][] {
  return Object.entries(source.values).flatMap(([key, value]): [string, unknown][] => {
    const isGroup = groupNames.has(key) || (isPlainObject(value) && !shortNames.has(key) && !key.includes("."));
    if (!isGroup) return [[key, value]];
    if (!groupNames.has(key)) {
      throw new UsageError(`${source.label(key)}: no such group of settings.${didYouMean(key, groupNames, 5)}`);
    }
    if (value === undefined || value === null) return [];
    if (!isPlainObject(value)) {
      throw new UsageError(`${source.label(key)}: a group of settings, which wants names and values below it.`);
    }
    return Object.entries(value).map(([field, inner]): [string, unknown] => [`${key}.${field}`, inner]);
  });
}

/** `KEY=VALUE` of --set; the value is read as YAML reads it. @throws UsageError */
export function parseAssignment(text: string): SettingsSource {
  const cut = text.indexOf("=");
  if (cut < 1) throw new UsageError(`--set ${text}: expected KEY=VALUE, such as --set dModel=64.`);
  const key = text.slice(0, cut);
  const written = text.slice(cut + 1);
  let value: unknown;
  try {
    value = parse(written);
  } catch (error) {
    throw new UsageError(`--set ${text}: the value cannot be read (${(error as Error).message.split("\n")[0]}).`);
  }
  return { label: () => `--set ${text}`, values: { [key]: value } };
}

/** What a ConfigError of the model says, with the field that it begins with. */
function modelComplaint(error: unknown): { field: string; message: string } {
  const { message } = error as Error;
  const cut = message.indexOf(":");
  return { field: message.slice(0, cut), message: message.slice(cut + 1).trim() };
}

/**
 * Whole settings from sources, a later one over an earlier one.
 * @throws UsageError naming the source, the setting and what it must be
 */
export function resolveSettings(sources: readonly SettingsSource[]): Settings {
  const values: Record<string, unknown> = {};
  const labels = new Map<string, string>();
  for (const source of sources) {
    for (const [key, value] of opened(source)) {
      const label = source.label(key);
      const name = settingName(key, label);
      labels.set(name, label);
      const [group, field] = name.includes(".") ? name.split(".") : [undefined, name];
      if (group === undefined) values[field] = value;
      else values[group] = { ...(values[group] as object | undefined), [field]: value };
    }
  }
  const parsed = settingsSchema.safeParse(values);
  if (!parsed.success) {
    const complaints = parsed.error.issues.map(({ path, message }) => {
      const name = path.join(".");
      const label = labels.get(name);
      const subject = label === undefined || label.includes(name) ? "" : `${name} `;
      return `${label ?? name}: ${subject}${message}.`;
    });
    throw new UsageError(complaints.join("\n"));
  }
  const settings = parsed.data as Settings;
  try {
    modelConfig(settings.model);
  } catch (error) {
    const { field, message } = modelComplaint(error);
    const name = shortNames.get(field)?.[0] ?? field;
    throw new UsageError(`${labels.get(name) ?? name}: model.${field} is ${message}`, { cause: error });
  }
  return settings;
}

/** Settings as dotted names and values, for tables. */
export function flatSettings(settings: object): Map<string, string> {
  const flat = new Map<string, string>();
  const visit = (value: unknown, path: string): void => {
    if (isPlainObject(value)) {
      for (const [key, inner] of Object.entries(value)) visit(inner, path === "" ? key : `${path}.${key}`);
    } else if (value !== undefined) {
      flat.set(path, typeof value === "string" ? value : JSON.stringify(value));
    }
  };
  visit(settings, "");
  return flat;
}

/** The nearest setting to a word, for messages of other kinds. */
export const nearestSetting = (word: string): string | undefined => nearest(word, shortNames.keys());
