// Layer: apps/playground, worker. Files that a visitor picked, as a file system that can only be read. A range is read from disk when it
// is asked for, so that a checkpoint need not fit into memory twice. Knows no format.

import { type FileEntry, FileError, type FileSystem } from "@diffmamba/files";

const refuse = (operation: string) => async (path: string) => {
  throw new FileError("denied", operation, path, "files that were picked are only read");
};

const clean = (path: string) =>
  path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/");

/** @param given files with their paths, `/` between the parts */
export function pickedFiles(given: readonly { readonly path: string; readonly file: Blob }[]): FileSystem {
  const files = new Map(given.map(({ path, file }) => [clean(path), file]));
  const find = (path: string, operation: string): Blob => {
    const file = files.get(clean(path));
    if (file === undefined)
      throw new FileError("missing", operation, path, "it is not among the files that were picked");
    return file;
  };
  const bytes = async (blob: Blob, path: string) => {
    try {
      return new Uint8Array(await blob.arrayBuffer());
    } catch (error) {
      throw new FileError("other", "read", path, `${(error as Error).message} Was it changed after it was picked?`, {
        cause: error,
      });
    }
  };
  /** What is directly below a folder. */
  const below = (folder: string): FileEntry[] => {
    const prefix = clean(folder) === "" ? "" : `${clean(folder)}/`;
    const entries = new Map<string, FileEntry>();
    for (const path of files.keys()) {
      if (!path.startsWith(prefix)) continue;
      const [name = "", ...rest] = path.slice(prefix.length).split("/");
      entries.set(name, { name, kind: rest.length > 0 ? "directory" : "file" });
    }
    return [...entries.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  };
  return {
    async stat(path) {
      const file = files.get(clean(path));
      if (file !== undefined) return { kind: "file", size: file.size };
      return below(path).length > 0 ? { kind: "directory", size: 0 } : undefined;
    },
    read: (path) => bytes(find(path, "read"), path),
    async readRange(path, offset, length) {
      const file = find(path, "read");
      if (offset + length > file.size) {
        throw new FileError("short", "read", path, `it has ${file.size} bytes, and ${offset + length} were asked for`);
      }
      return bytes(file.slice(offset, offset + length), path);
    },
    async list(path) {
      const entries = below(path);
      if (entries.length === 0)
        throw new FileError("missing", "list", path, "no such folder among the files that were picked");
      return entries;
    },
    makeDirectory: refuse("make directory"),
    writer: refuse("write"),
    truncate: refuse("truncate"),
    rename: refuse("rename"),
    remove: refuse("remove"),
    syncDirectory: async () => undefined,
    createExclusive: refuse("create"),
  };
}
