// Layer: apps/playground, worker. Checkpoints from and to the visitor's disk: a folder, picked files or a zip becomes a model with its
// tokenizer; a model becomes a folder that the command line reads. Knows files and model folders. Knows no run and no page.

import { baseName, type FileSystem, joinPath, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { opfsFiles } from "@diffmamba/files/opfs";
import { MambaLM } from "@diffmamba/models";
import type { Device } from "@diffmamba/tensor";
import { loadTokenizer, saveTokenizer, type Tokenizer } from "@diffmamba/tokenizer";
import { resolveCheckpoint } from "@diffmamba/train";
import { unzipSync, zipSync } from "fflate";
import type { CheckpointSource } from "../protocol.js";
import { pickedFiles } from "./pickedFiles.js";

export interface LoadedModel {
  readonly title: string;
  readonly model: MambaLM;
  readonly tokenizer: Tokenizer;
}

/** A folder or zip that holds no checkpoint, or one that cannot be used. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";
}

/** The files of a zip. @throws CheckpointError where it is damaged or none */
async function unzip(file: Blob, name: string): Promise<FileSystem> {
  let entries: Record<string, Uint8Array>;
  try {
    entries = unzipSync(new Uint8Array(await file.arrayBuffer()));
  } catch (error) {
    const detail = (error as Error).message;
    throw new CheckpointError(
      `${name} cannot be unpacked (${detail}): it is no zip, or it is cut short. Nothing was loaded.`,
      {
        cause: error,
      },
    );
  }
  const parts = Object.entries(entries).filter(([path]) => !path.endsWith("/") && !path.startsWith("__MACOSX/"));
  return pickedFiles(parts.map(([path, bytes]) => ({ path, file: new Blob([new Uint8Array(bytes)]) })));
}

async function openSource(source: CheckpointSource): Promise<FileSystem> {
  if (source.kind === "folder") return opfsFiles(source.handle);
  if (source.kind === "files") return pickedFiles(source.files);
  return unzip(source.file, source.name);
}

/** The folder with the model: the root, or the only folder on the way down. */
async function modelFolder(files: FileSystem, name: string): Promise<string> {
  let folder = "";
  for (let depth = 0; depth < 4; depth++) {
    const entries = await files.list(folder);
    const has = (wanted: string) => entries.some((entry) => entry.kind === "file" && entry.name === wanted);
    if (has("config.json") || has("last")) return resolveCheckpoint(files, folder);
    const folders = entries.filter(({ kind }) => kind === "directory");
    if (folders.length !== 1) break;
    folder = joinPath(folder, (folders[0] as { name: string }).name);
  }
  throw new CheckpointError(
    `${name} holds no checkpoint: expected config.json, model.safetensors and a tokenizer. Nothing was loaded.`,
  );
}

/** @throws CheckpointError, FormatError, FileError naming the file and what is wrong with it */
export async function loadCheckpoint(source: CheckpointSource, device: Device): Promise<LoadedModel> {
  const files = await openSource(source);
  const folder = await modelFolder(files, source.name);
  const tokenizer = await loadTokenizer(files, folder);
  const model = await MambaLM.load(files, folder, { device });
  const { vocabSize } = model.config;
  if (tokenizer.vocabSize > vocabSize) {
    model.dispose();
    throw new CheckpointError(
      `${source.name}: its tokenizer has ${tokenizer.vocabSize} symbols, but its model a vocabulary of ${vocabSize}; they are of two models.`,
    );
  }
  return { title: baseName(source.name) || source.name, model, tokenizer };
}

const readme = (name: string) => `${name}

A checkpoint of Diff-Mamba in TypeScript, trained in a browser tab: config.json, the weights in model.safetensors, and the
tokenizer. The command line goes on with a text:

    npx diffmamba generate --checkpoint . --prompt "The harbour" --max-tokens 200 --temperature 0.7
`;

/** Writes a model and its tokenizer into a folder. */
async function writeModel(files: FileSystem, folder: string, model: MambaLM, tokenizer: Tokenizer): Promise<void> {
  await files.makeDirectory(folder);
  await model.save(files, folder);
  await saveTokenizer(files, folder, tokenizer);
  await writeFileAtomic(files, joinPath(folder, "README.txt"), readme(folder));
}

/** Writes a model below a directory of the visitor's disk, into a folder of that name. @throws FileError */
export async function exportToDirectory(
  directory: FileSystemDirectoryHandle,
  name: string,
  { model, tokenizer }: Pick<LoadedModel, "model" | "tokenizer">,
): Promise<void> {
  await writeModel(opfsFiles(directory), name, model, tokenizer);
}

/** A zip with a model's folder. Weights do not get smaller by packing, so that nothing is packed. */
export async function exportZip(
  name: string,
  { model, tokenizer }: Pick<LoadedModel, "model" | "tokenizer">,
): Promise<Uint8Array<ArrayBuffer>> {
  const files = memoryFiles();
  await writeModel(files, name, model, tokenizer);
  const entries: Record<string, Uint8Array> = {};
  for (const entry of await files.list(name))
    entries[`${name}/${entry.name}`] = await files.read(joinPath(name, entry.name));
  return zipSync(entries, { level: 0 }) as Uint8Array<ArrayBuffer>;
}
