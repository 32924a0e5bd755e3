// Checkpoint formats: the weights of a model folder, in whichever of the four forms they are there.
// Knows the file names that the Hugging Face library uses; knows no model.
import { type FileSystem, joinPath } from "@diffmamba/files";
import { FormatError, shown } from "./errors.js";
import { SafetensorsFile } from "./safetensors.js";
import { openShardedSafetensors, safetensorsIndexName, safetensorsName } from "./shardedSafetensors.js";
import type { TensorFile } from "./tensorFile.js";
import { openShardedTorchBin, TorchBinFile, torchBinIndexName, torchBinName } from "./torchBin.js";

type Open = (files: FileSystem, path: string) => Promise<TensorFile>;

/** The forms, in the order they are looked for. */
const forms: readonly (readonly [string, Open])[] = [
  [safetensorsName, SafetensorsFile.open],
  [safetensorsIndexName, openShardedSafetensors],
  [torchBinName, TorchBinFile.open],
  [torchBinIndexName, openShardedTorchBin],
];

/**
 * Opens the weights of a model folder: `model.safetensors`, else its index and shards, else `pytorch_model.bin`, else its index
 * and shards. Elements are read when asked for.
 * @throws FormatError for a missing folder, one without weights (with what was looked for), and as the formats do; FileError
 */
export async function openCheckpointTensors(files: FileSystem, folder: string): Promise<TensorFile> {
  const kind = (await files.stat(folder))?.kind;
  if (kind === undefined) throw new FormatError(folder, "no such folder");
  if (kind === "file") throw new FormatError(folder, "a file; expected a model folder");
  for (const [name, open] of forms) {
    const path = joinPath(folder, name);
    if ((await files.stat(path))?.kind === "file") return open(files, path);
  }
  const looked = forms.map(([name]) => name).join(", ");
  const entries = (await files.list(folder)).map((entry) =>
    entry.kind === "directory" ? `${entry.name}/` : entry.name,
  );
  const some = entries.slice(0, 8).map(shown).join(", ");
  const there = entries.length === 0 ? "the folder is empty" : `it has ${some}${entries.length > 8 ? ", ..." : ""}`;
  throw new FormatError(folder, `no weights: looked for ${looked}; ${there}`);
}
