// Layer: apps/cli, training. The settings of a run: from its flags, or, where it goes on, from what it was recorded with.
// Knows flags, presets and run folders. Knows no model and no loop.
import { existsSync } from "node:fs";
import path from "node:path";
import { nodeFiles } from "@diffmamba/files/node";
import { lastFile, readRunRecord, runFile } from "@diffmamba/train";
import { checkBackendName, type DeviceFlags } from "../backends.js";
import { CommandError, UsageError } from "../errors.js";
import { readSettingsFile } from "../settings/file.js";
import { presetSource } from "../settings/presets.js";
import { parseAssignment, resolveSettings, type SettingsSource } from "../settings/resolve.js";
import type { Settings } from "../settings/schema.js";
import { type Plan, planFile, readRunFile } from "./files.js";

/** The flags that say what is trained. */
export interface TrainFlags extends DeviceFlags {
  readonly preset?: string;
  readonly config?: string;
  readonly data?: string;
  readonly out: string;
  readonly steps?: number;
  readonly seed?: number;
  readonly variant?: string;
  readonly lambda?: string;
  readonly pattern?: string;
  readonly tokenizer?: string;
  readonly precision?: string;
  readonly checkpointActivations?: boolean;
  readonly set?: readonly string[];
  readonly resume?: boolean;
}

/** What a run is, as its record keeps it. */
export interface RunPlan {
  readonly settings: Settings;
  /** The --data argument. */
  readonly data: string;
  readonly preset: string | undefined;
  /** Whether the folder holds a run that goes on. */
  readonly resumes: boolean;
  /** The --threads argument. No setting: it changes nothing that is computed. */
  readonly threads?: number;
}

/** Flags that stand for one setting each. */
const flagSettings = {
  steps: "train.steps",
  seed: "seed",
  backend: "backend",
  variant: "model.variant",
  lambda: "model.lambda",
  pattern: "model.pattern",
  tokenizer: "data.tokenizer",
  precision: "train.precision",
  checkpointActivations: "train.checkpointActivations",
} as const;

/** "0,2,4" is a list of layers; anything else a name. */
export const patternValue = (text: string): unknown => (/^[\d,\s]+$/.test(text) ? text.split(",").map(Number) : text);

function flagSource(flags: TrainFlags): SettingsSource {
  const values: Record<string, unknown> = {};
  for (const [flag, name] of Object.entries(flagSettings) as [keyof typeof flagSettings, string][]) {
    const value = flags[flag];
    if (value !== undefined) values[name] = flag === "pattern" ? patternValue(value as string) : value;
  }
  const flagOf = Object.fromEntries(Object.entries(flagSettings).map(([flag, name]) => [name, flag]));
  return { label: (key) => `--${flagOf[key]} ${flags[flagOf[key] as keyof TrainFlags]}`, values };
}

interface Recorded {
  readonly file: string;
  readonly values: Record<string, unknown>;
  readonly preset?: string;
  readonly data?: string;
}

/** The settings that a run was recorded with, or planned with where it has not begun. @throws RunError, FileError, CommandError naming the file */
async function recorded(folder: string): Promise<Recorded | undefined> {
  const hasRecord = existsSync(path.join(folder, runFile));
  const plan = hasRecord
    ? (await readRunRecord(nodeFiles(), folder)).parts.at(-1)?.settings
    : await readRunFile<Plan>(folder, planFile);
  if (plan === undefined) return undefined;
  const { preset, dataPath, ...values } = plan;
  return {
    file: path.join(folder, hasRecord ? runFile : planFile),
    values,
    ...(typeof preset === "string" && { preset }),
    ...(typeof dataPath === "string" && { data: dataPath }),
  };
}

const holdsRun = (folder: string): boolean =>
  existsSync(path.join(folder, runFile)) || existsSync(path.join(folder, lastFile));

/**
 * Preset, settings file, --set and the other flags, merged in that order; over what the run was recorded with, where it goes on.
 * @throws UsageError; CommandError where the folder holds a run already, or none to go on with
 */
export async function planRun(flags: TrainFlags): Promise<RunPlan> {
  const { out } = flags;
  const resumes = holdsRun(out);
  if (resumes && !flags.resume) {
    throw new CommandError(
      `${out}: holds a run already. Go on with it (diffmamba train --resume --out ${out}), or choose another folder.`,
    );
  }
  const before = flags.resume ? await recorded(out) : undefined;
  if (flags.resume && before === undefined && flags.data === undefined) {
    const what = existsSync(out) ? "holds no run" : "no such folder";
    throw new CommandError(`${out}: ${what}, so there is nothing to resume. A new run wants --data.`);
  }
  const file = flags.config === undefined ? undefined : readSettingsFile(flags.config);
  const { preset: filePreset, ...fileValues } = file?.values ?? {};
  if (filePreset !== undefined && typeof filePreset !== "string") {
    throw new UsageError(`${flags.config}: preset must be the name of a preset.`);
  }
  const preset = flags.preset ?? filePreset ?? before?.preset;
  const sources: SettingsSource[] = [
    ...(before ? [{ label: (key: string) => `${before.file}: ${key}`, values: before.values }] : []),
    ...(preset !== undefined && preset !== before?.preset ? [presetSource(preset)] : []),
    ...(file ? [{ ...file, values: fileValues }] : []),
    ...(flags.set ?? []).map(parseAssignment),
    flagSource(flags),
  ];
  const settings = resolveSettings(sources);
  if (settings.backend !== undefined) checkBackendName(settings.backend);
  const data = flags.data ?? before?.data;
  if (data === undefined)
    throw new UsageError("train wants --data: a text file, a token store, or a name in DIFFMAMBA_DATA.");
  return { settings, data, preset, resumes, ...(flags.threads !== undefined && { threads: flags.threads }) };
}
