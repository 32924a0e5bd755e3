// Checkpoint formats: a folder's weights as one `model.safetensors`, or as shards and their index where they are too large.
// Source: the file names and index of the Hugging Face library. Knows no model.
import { type FileSystem, joinPath, writeFileAtomic } from "@diffmamba/files";
import { FormatError, shapeText, shown } from "./errors.js";
import { stringifyLooseJson } from "./looseJson.js";
import { SafetensorsFile } from "./safetensors.js";
import { byteLength } from "./safetensorsHeader.js";
import { type NamedTensors, type WritableTensor, writeSafetensors } from "./safetensorsWrite.js";
import { ShardedTensors } from "./shardIndex.js";

export const safetensorsName = "model.safetensors";
export const safetensorsIndexName = "model.safetensors.index.json";

/** Opens the shards that `model.safetensors.index.json` names. @throws FormatError naming the shard or tensor that is missing */
export function openShardedSafetensors(files: FileSystem, indexPath: string): Promise<ShardedTensors> {
  return ShardedTensors.open(files, indexPath, SafetensorsFile.open);
}

export interface WriteShardsOptions {
  /** The most bytes of tensors in one file (default 5e9); a tensor larger than that gets a file of its own. */
  readonly maxShardBytes?: number;
  /** Strings for every file's `__metadata__` (default `{ format: "pt" }`, which the Hugging Face library demands). */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes a folder's weights: `model.safetensors` where they fit one file, else `model-00001-of-0000N.safetensors` and so on,
 * filled in the order the tensors come in, and `model.safetensors.index.json`. A single file or an index of an earlier save in
 * that folder is removed, since readers would take it for the weights. A crash in between is not survived: write to a new folder
 * and rename it where that matters.
 * @returns the names of the files written, the index last
 * @throws FormatError and FileError as `writeSafetensors`
 */
export async function writeShardedSafetensors(
  files: FileSystem,
  folder: string,
  tensors: NamedTensors,
  options: WriteShardsOptions = {},
): Promise<string[]> {
  const { maxShardBytes = 5e9, metadata = { format: "pt" } } = options;
  if (!(maxShardBytes >= 1)) {
    throw new RangeError(`writeShardedSafetensors: maxShardBytes is ${maxShardBytes}; expected 1 byte or more`);
  }
  const { shards, total } = pack(tensors, maxShardBytes, folder);
  await files.makeDirectory(folder);
  const [only] = shards;
  if (only !== undefined && shards.length === 1) {
    await writeSafetensors(files, joinPath(folder, safetensorsName), only, { metadata });
    await files.remove(joinPath(folder, safetensorsIndexName));
    return [safetensorsName];
  }
  const owner = new Map<string, string>();
  const written: string[] = [];
  for (const [i, shard] of shards.entries()) {
    const name = `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
    await writeSafetensors(files, joinPath(folder, name), shard, { metadata });
    for (const tensor of shard.keys()) owner.set(tensor, name);
    written.push(name);
  }
  const index = stringifyLooseJson({ metadata: { total_size: total }, weight_map: Object.fromEntries(owner) });
  await writeFileAtomic(files, joinPath(folder, safetensorsIndexName), `${index}\n`);
  await files.remove(joinPath(folder, safetensorsName));
  return [...written, safetensorsIndexName];
}

function digits(n: number): string {
  return String(n).padStart(5, "0");
}

/** Fills one shard after the other, in order; always at least one, which may be empty. */
function pack(
  tensors: NamedTensors,
  maxShardBytes: number,
  folder: string,
): { readonly shards: readonly ReadonlyMap<string, WritableTensor>[]; readonly total: number } {
  let current = new Map<string, WritableTensor>();
  let currentBytes = 0;
  let total = 0;
  const shards = [current];
  const names = new Set<string>();
  for (const [name, tensor] of tensors) {
    if (names.has(name))
      throw new FormatError(folder, `cannot write tensor "${shown(name)}": two tensors have this name`);
    names.add(name);
    const bytes = byteLength(tensor.dtype, tensor.shape);
    if (bytes === undefined) {
      throw new FormatError(folder, `cannot write tensor "${shown(name)}": bad shape ${shapeText(tensor.shape)}`);
    }
    if (current.size > 0 && currentBytes + bytes > maxShardBytes) {
      current = new Map();
      currentBytes = 0;
      shards.push(current);
    }
    current.set(name, tensor);
    currentBytes += bytes;
    total += bytes;
  }
  return { shards, total };
}
