// Layer: train. What a checkpoint holds: a model folder, the optimizer's moments under published names, and the state of the run.
// Knows modules, the optimizer and the formats. Knows no loop; where and when a folder is published is runFolder.ts's.

import { type FileSystem, joinPath, readJson, writeFileAtomic } from "@diffmamba/files";
import {
  type LazyTensor,
  openCheckpointTensors,
  SafetensorsFile,
  type TensorFile,
  writeSafetensors,
} from "@diffmamba/models";
import {
  type AdamW,
  type AdamWState,
  type LossScaleState,
  type Module,
  type PublishedTensor,
  pack,
  publishedShape,
  unpack,
} from "@diffmamba/nn";
import type { HostTensor, TypedArray } from "@diffmamba/tensor";
import { RunError } from "./errors.js";
import type { BestCheckpoint } from "./events.js";
import { isObject, type Json, shownJson } from "./json.js";
import { trainingFolder } from "./runFolder.js";

const FORMAT = "diffmamba-training-state";
const stateFile = "state.json";
const optimizerFile = "optimizer.safetensors";

/**
 * Where a run stands, beside weights and moments. Random numbers are counted by seed and step, so that the step is their
 * whole state.
 */
export interface TrainingState {
  /** Steps done. */
  readonly step: number;
  /** Targets seen. */
  readonly tokens: number;
  /** Wall-clock seconds so far. */
  readonly seconds: number;
  /** Steps skipped in a row, up to this one, because the norm of the gradients was not finite. */
  readonly skipped: number;
  readonly best: BestCheckpoint | null;
  /** What the batches' `state()` gave. */
  readonly data: Json;
  /** Of a run in f16. */
  readonly lossScale?: LossScaleState;
}

/** A training state as its file holds it. */
interface StateFile extends TrainingState {
  readonly format: typeof FORMAT;
  readonly version: 1;
  /** Steps that the optimizer did, for each group. */
  readonly optimizerSteps: readonly number[];
}

/** Names of the moments of a published tensor. */
const momentNames = { m: (name: string) => `m.${name}`, v: (name: string) => `v.${name}` };

/** The published tensors that the optimizer trains. */
function trained(model: Module, optimizer: AdamW): PublishedTensor[] {
  const parameters = new Set(optimizer.parameters);
  return model.published().filter(({ parameter }) => parameters.has(parameter));
}

/** Moments as published tensors, `m.NAME` and `v.NAME`; each is cut out of its fused parameter's when its turn comes. */
function moments(model: Module, optimizer: AdamW, state: AdamWState): [string, LazyTensor][] {
  return trained(model, optimizer).flatMap((entry) =>
    (["m", "v"] as const).map((moment): [string, LazyTensor] => {
      const load = async () => {
        const parts = await unpack([entry], async (parameter) => state[moment].get(parameter) as TypedArray);
        return (parts.get(entry.name) as HostTensor).data;
      };
      return [momentNames[moment](entry.name), { dtype: entry.parameter.dtype, shape: publishedShape(entry), load }];
    }),
  );
}

/** Writes a whole checkpoint into a folder that exists. Nothing there is flushed by name yet; see `RunFolder.publish`. */
export async function writeCheckpoint(
  files: FileSystem,
  folder: string,
  what: {
    readonly model: Module & { save(files: FileSystem, folder: string): Promise<void> };
    readonly optimizer: AdamW;
    readonly state: TrainingState;
    /** Further files of the folder, such as the tokenizer's. */
    readonly saveExtra?: (files: FileSystem, folder: string) => Promise<void>;
  },
): Promise<void> {
  const { model, optimizer, state, saveExtra } = what;
  await model.save(files, folder);
  await saveExtra?.(files, folder);
  const training = joinPath(folder, trainingFolder);
  await files.makeDirectory(training);
  const optimizerState = await optimizer.state();
  await writeSafetensors(files, joinPath(training, optimizerFile), moments(model, optimizer, optimizerState));
  const content: StateFile = { format: FORMAT, version: 1, ...state, optimizerSteps: optimizerState.steps };
  await writeFileAtomic(files, joinPath(training, stateFile), `${JSON.stringify(content, null, 1)}\n`);
}

/** Reads the named tensors of a file, which must have the parameters' own types: a conversion would change the run. */
async function readTensors(
  file: TensorFile,
  published: readonly PublishedTensor[],
  nameIn: (name: string) => string,
): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const { name, parameter } of published) {
    const stored = nameIn(name);
    if (!file.has(stored)) {
      throw new RunError(
        file.path,
        `has no tensor "${stored}", which the model trains; is it the checkpoint of another model?`,
      );
    }
    const { dtype } = file.describe(stored);
    if (dtype !== parameter.dtype) {
      throw new RunError(
        file.path,
        `"${stored}" is ${dtype}, but the model holds ${parameter.dtype}; make the model in ${dtype}`,
      );
    }
    tensors.set(name, await file.read(stored));
  }
  return tensors;
}

async function readState(files: FileSystem, path: string): Promise<StateFile> {
  const json = await readJson(files, path);
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!isObject(json) || json.format !== FORMAT || json.version !== 1) {
    throw new RunError(path, `not a training state of this package: expected "format": "${FORMAT}" and "version": 1`);
  }
  for (const key of ["step", "tokens", "skipped"] as const) {
    if (!isCount(json[key]))
      throw new RunError(path, `its "${key}" is ${shownJson(json[key] as Json)}; expected a count`);
  }
  if (!Array.isArray(json.optimizerSteps) || !json.optimizerSteps.every(isCount)) {
    throw new RunError(
      path,
      `its "optimizerSteps" is ${shownJson(json.optimizerSteps as Json)}; expected a list of counts`,
    );
  }
  if (json.best !== null && !(isObject(json.best) && isCount(json.best.step) && typeof json.best.loss === "number")) {
    throw new RunError(path, `its "best" is ${shownJson(json.best as Json)}; expected null, or a step and a loss`);
  }
  const { lossScale } = json;
  if (
    lossScale !== undefined &&
    !(isObject(lossScale) && typeof lossScale.scale === "number" && isCount(lossScale.steps))
  ) {
    throw new RunError(
      path,
      `its "lossScale" is ${shownJson(lossScale as Json)}; expected a scale and a count of steps`,
    );
  }
  return json as unknown as StateFile;
}

/**
 * Puts a checkpoint back: weights and moments to the device, bit for bit. Everything is read before anything is changed.
 * @param groups how many groups the optimizer has
 * @returns where the run stood
 * @throws RunError, FileError, FormatError naming the file and the tensor
 */
export async function readCheckpoint(
  files: FileSystem,
  folder: string,
  { model, optimizer, groups }: { readonly model: Module; readonly optimizer: AdamW; readonly groups: number },
): Promise<TrainingState> {
  const training = joinPath(folder, trainingFolder);
  if ((await files.stat(joinPath(training, stateFile))) === undefined) {
    throw new RunError(
      folder,
      `has no ${trainingFolder}/${stateFile}: a model that can be used, but no run that can go on`,
    );
  }
  const { optimizerSteps, format: _, version: __, ...state } = await readState(files, joinPath(training, stateFile));
  const steps = groupSteps(joinPath(training, stateFile), optimizerSteps, groups);

  const weightsFile = await openCheckpointTensors(files, folder);
  const weights = await readTensors(weightsFile, model.published(), (name) => name);
  await weightsFile.close();

  const published = trained(model, optimizer);
  const momentsFile = await SafetensorsFile.open(files, joinPath(training, optimizerFile));
  const m = await readTensors(momentsFile, published, momentNames.m);
  const v = await readTensors(momentsFile, published, momentNames.v);
  await momentsFile.close();

  model.loadStateDict(weights);
  optimizer.restore({ steps, m: pack(published, m), v: pack(published, v) });
  return state;
}

/** Steps for each group of the optimizer. The groups may be cut otherwise than they were, where all had done the same. */
function groupSteps(path: string, saved: readonly number[], groups: number): number[] {
  if (saved.length === groups) return [...saved];
  const [first] = saved;
  if (first !== undefined && saved.every((steps) => steps === first)) return new Array<number>(groups).fill(first);
  throw new RunError(path, `has ${saved.length} groups of parameters of unequal steps; this run has ${groups}`);
}
