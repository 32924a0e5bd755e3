// Layer: files, the Node entry. Files on disk through node:fs/promises: flushed on close, errors by their cause.
// Knows no format.
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { FileError, type FileErrorCode, type FileSystem, type FileWriter } from "./index.js";
import { byName, checkRange, checkTruncate, shortError } from "./paths.js";

const causes: Readonly<Record<string, readonly [FileErrorCode, string]>> = {
  ENOENT: ["missing", "no such file or directory"],
  ENOTDIR: ["missing", "a part of the path is not a directory"],
  ENOSPC: ["full", "no space left on the device"],
  EDQUOT: ["full", "no space left on the device (disk quota exceeded)"],
  EACCES: ["denied", "permission denied"],
  EPERM: ["denied", "operation not permitted"],
  EROFS: ["denied", "the file system is read-only"],
  EEXIST: ["exists", "it already exists"],
  EISDIR: ["other", "it is a directory"],
  EMFILE: ["other", "too many open files"],
};

function fileError(error: unknown, operation: string, path: string, suffix = ""): Error {
  if (error instanceof FileError || error instanceof RangeError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const [kind, detail] = causes[code ?? ""] ?? ["other", message];
  return new FileError(kind, operation, path, detail + suffix, { cause: error });
}

/** Bytes of one system call; a single read or write may not exceed 2 GiB. */
const piece = 1 << 30;

async function readFully(handle: FileHandle, path: string, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, Math.min(piece, length - done), offset + done);
    if (bytesRead === 0) throw shortError(path, offset, length, offset + done);
    done += bytesRead;
  }
  return bytes;
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(piece, bytes.length - done));
    done += bytesWritten;
  }
}

class NodeWriter implements FileWriter {
  #handle: FileHandle | undefined;

  constructor(
    handle: FileHandle,
    readonly path: string,
  ) {
    this.#handle = handle;
  }

  #open(): FileHandle {
    if (!this.#handle) throw new FileError("other", "write", this.path, "the writer is closed");
    return this.#handle;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const handle = this.#open();
    try {
      await writeFully(handle, bytes);
    } catch (error) {
      throw fileError(error, "write", this.path);
    }
  }

  async close(): Promise<void> {
    const handle = this.#open();
    this.#handle = undefined;
    try {
      await handle.sync();
    } catch (error) {
      await handle.close().catch(() => undefined);
      throw fileError(error, "write", this.path);
    }
    await handle.close().catch((error) => {
      throw fileError(error, "write", this.path);
    });
  }

  async abort(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close().catch(() => undefined);
  }
}

/** Runs `use` on an open file, closes it in any case, and names the path in whatever fails. */
async function withFile<T>(
  path: string,
  operation: string,
  flags: string | number,
  use: (handle: FileHandle) => Promise<T>,
): Promise<T> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, flags);
    return await use(handle);
  } catch (error) {
    throw fileError(error, operation, path);
  } finally {
    await handle?.close().catch(() => undefined);
  }
}

async function status(path: string): Promise<{ kind: "file" | "directory"; size: number } | undefined> {
  try {
    const found = await stat(path);
    return found.isDirectory() ? { kind: "directory", size: 0 } : { kind: "file", size: found.size };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw fileError(error, "look up", path);
  }
}

/**
 * Files on disk. Relative paths start at the working directory. `close` of a writer, `truncate` and `createExclusive` flush
 * to stable storage; `syncDirectory` makes new names and renames durable (on Windows, which has no such call, it does nothing).
 */
export function nodeFiles(): FileSystem {
  return {
    stat: status,

    read: (path) =>
      withFile(path, "read", "r", async (handle) => readFully(handle, path, 0, (await handle.stat()).size)),

    readRange: (path, offset, length) =>
      withFile(path, "read", "r", async (handle) => {
        checkRange(path, offset, length, (await handle.stat()).size);
        return readFully(handle, path, offset, length);
      }),

    async list(path) {
      try {
        const entries = await readdir(path, { withFileTypes: true });
        const named = entries.map(async (entry) => {
          const link = entry.isSymbolicLink() ? await status(`${path}/${entry.name}`) : undefined;
          const directory = entry.isDirectory() || link?.kind === "directory";
          return { name: entry.name, kind: directory ? ("directory" as const) : ("file" as const) };
        });
        return (await Promise.all(named)).sort(byName);
      } catch (error) {
        throw fileError(error, "list", path);
      }
    },

    async makeDirectory(path) {
      try {
        await mkdir(path, { recursive: true });
      } catch (error) {
        throw fileError(error, "make directory", path);
      }
    },

    async writer(path, options) {
      try {
        return new NodeWriter(await open(path, options?.append ? "a" : "w"), path);
      } catch (error) {
        throw fileError(error, "write", path);
      }
    },

    truncate: (path, size) =>
      withFile(path, "truncate", "r+", async (handle) => {
        checkTruncate(path, size, (await handle.stat()).size);
        await handle.truncate(size);
        await handle.sync();
      }),

    async rename(from, to) {
      const [source, target] = await Promise.all([status(from), status(to)]);
      if (source && target && (source.kind === "directory" || target.kind === "directory")) {
        throw new FileError("exists", "rename", from, `a ${target.kind} is already at ${to}`);
      }
      try {
        await rename(from, to);
      } catch (error) {
        throw fileError(error, "rename", from, ` (renaming to ${to})`);
      }
    },

    async remove(path) {
      try {
        await rm(path, { recursive: true, force: true });
      } catch (error) {
        throw fileError(error, "remove", path);
      }
    },

    async syncDirectory(path) {
      if (process.platform === "win32") return;
      await withFile(path, "flush directory", constants.O_RDONLY | constants.O_DIRECTORY, (handle) => handle.sync());
    },

    async createExclusive(path, content) {
      let handle: FileHandle;
      try {
        handle = await open(path, "wx");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
        throw fileError(error, "create", path);
      }
      const writer = new NodeWriter(handle, path);
      try {
        await writer.write(content);
        await writer.close();
        return true;
      } catch (error) {
        await writer.abort();
        await rm(path, { force: true }).catch(() => undefined);
        throw error;
      }
    },
  };
}
