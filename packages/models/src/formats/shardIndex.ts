// Checkpoint formats: tensors spread over several files that an index names (`*.index.json`), for every format alike.
// Source: the sharded checkpoints of the Hugging Face library. Opens shards through a function; knows no format.
import { type FileSystem, joinPath, parentPath } from "@diffmamba/files";
import type { HostTensor } from "@diffmamba/tensor";
import { FormatError, shown } from "./errors.js";
import { isJsonObject, readLooseJson } from "./looseJson.js";
import type { TensorDescription, TensorFile } from "./tensorFile.js";

/** The file of each tensor, by name, in the index's order. Files are plain names in the index's own folder. */
export type WeightMap = ReadonlyMap<string, string>;

/** Reads and checks an index. @throws FormatError for JSON that is not, or that is not an index; FileError */
export async function readShardIndex(files: FileSystem, path: string): Promise<WeightMap> {
  const root = await readLooseJson(files, path, { duplicates: "error" });
  const map = isJsonObject(root) ? root.weight_map : undefined;
  if (!isJsonObject(map)) throw new FormatError(path, 'has no "weight_map" object that gives the file of each tensor');
  const weights = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !/^[^/\\\p{Cc}]+$/u.test(shard) || shard === "." || shard === "..") {
      const what = typeof shard === "string" ? `"${shown(shard)}"` : "no text";
      throw new FormatError(
        path,
        `tensor "${shown(name)}": its file is ${what}; expected the name of a file beside the index`,
      );
    }
    weights.set(name, shard);
  }
  return weights;
}

/** The tensors of several files as one. */
export class ShardedTensors implements TensorFile {
  readonly names: readonly string[];

  private constructor(
    readonly path: string,
    private readonly owner: ReadonlyMap<string, TensorFile>,
  ) {
    this.names = [...owner.keys()];
  }

  /**
   * Opens every file that the index names and finds every tensor in the file the index gives for it.
   * @param open opens one file of the format
   * @throws FormatError that names the file which is missing, or lacks a tensor
   */
  static async open(
    files: FileSystem,
    indexPath: string,
    open: (files: FileSystem, path: string) => Promise<TensorFile>,
  ): Promise<ShardedTensors> {
    const weights = await readShardIndex(files, indexPath);
    const shards = new Map<string, TensorFile>();
    const owner = new Map<string, TensorFile>();
    for (const [name, fileName] of weights) {
      let shard = shards.get(fileName);
      if (shard === undefined) {
        const path = joinPath(parentPath(indexPath), fileName);
        if ((await files.stat(path))?.kind !== "file") {
          throw new FormatError(
            indexPath,
            `names the file "${fileName}" for tensor "${shown(name)}", but ${path} is missing. Nothing was loaded.`,
          );
        }
        shard = await open(files, path);
        shards.set(fileName, shard);
      }
      if (!shard.has(name)) {
        throw new FormatError(
          shard.path,
          `has no tensor "${shown(name)}", which ${indexPath} says is there. Nothing was loaded.`,
        );
      }
      owner.set(name, shard);
    }
    return new ShardedTensors(indexPath, owner);
  }

  has(name: string): boolean {
    return this.owner.has(name);
  }

  describe(name: string): TensorDescription {
    return this.shard(name).describe(name);
  }

  async read(name: string): Promise<HostTensor> {
    return this.shard(name).read(name);
  }

  async close(): Promise<void> {
    for (const shard of new Set(this.owner.values())) await shard.close();
  }

  private shard(name: string): TensorFile {
    const shard = this.owner.get(name);
    if (shard === undefined) throw new FormatError(this.path, `names no tensor "${shown(name)}"`);
    return shard;
  }
}
