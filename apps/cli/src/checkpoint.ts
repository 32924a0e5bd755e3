// Layer: apps/cli. From a --checkpoint argument to a model and its tokenizer. Knows model folders. Knows no command.
import { nodeFiles } from "@diffmamba/files/node";
import { MambaLM } from "@diffmamba/models";
import type { Device, DType } from "@diffmamba/tensor";
import { loadTokenizer, type Tokenizer } from "@diffmamba/tokenizer";
import { resolveCheckpoint } from "@diffmamba/train";
import { CommandError, messageOf } from "./errors.js";
import { type Plan, readRunFile, settingsFile } from "./training/files.js";

export interface Checkpoint {
  /** The model folder: a run's last checkpoint where a run was given. */
  readonly folder: string;
  readonly model: MambaLM;
  readonly tokenizer: Tokenizer;
  /** The settings it was trained with, where it came from here. */
  readonly plan: Plan | undefined;
}

export interface CheckpointFlags {
  readonly checkpoint: string;
  readonly tokenizer?: string;
  /** What the weights are held and computed in; f32 by default. */
  readonly precision?: DType;
}

async function tokenizerOf(folder: string, flag: string | undefined): Promise<Tokenizer> {
  try {
    return await loadTokenizer(nodeFiles(), flag ?? folder);
  } catch (error) {
    if (flag !== undefined) throw error;
    throw new CommandError(`${messageOf(error)}. Name one with --tokenizer: a folder or file with tokenizer.json.`, {
      cause: error,
    });
  }
}

/**
 * Loads a model and the tokenizer beside it.
 * @throws RunError, FileError, FormatError naming the folder or file; CommandError where the tokenizer does not fit
 */
export async function openCheckpoint(
  { checkpoint, tokenizer: flag, precision }: CheckpointFlags,
  device: Device,
): Promise<Checkpoint> {
  const files = nodeFiles();
  const folder = await resolveCheckpoint(files, checkpoint);
  const tokenizer = await tokenizerOf(folder, flag);
  const model = await MambaLM.load(files, folder, { device, ...(precision && { dtype: precision }) });
  const { vocabSize } = model.config;
  if (tokenizer.vocabSize > vocabSize) {
    model.dispose();
    throw new CommandError(
      `${flag ?? folder}: the tokenizer has ${tokenizer.vocabSize} tokens, but the model ${folder} has a vocabulary of ${vocabSize}; ` +
        "it is another model's.",
    );
  }
  return { folder, model, tokenizer, plan: await readRunFile<Plan>(folder, settingsFile) };
}

/** The number that a plan has under `group.name`, if it has one. */
export function plannedNumber(plan: Plan | undefined, group: string, name: string): number | undefined {
  const value = (plan?.[group] as Record<string, unknown> | undefined)?.[name];
  return typeof value === "number" ? value : undefined;
}
