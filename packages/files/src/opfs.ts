// Layer: files. Files in a browser's origin private file system (OPFS), or in any directory handle that may be written.
// Knows the File System API by the few members it uses, so that Node projects type-check without the DOM's types.
//
// What a browser cannot promise: a directory is renamed by copying it and removing the original, which is not one step (write a
// small marker file last, and trust a directory only through it); appending copies the file first; nothing says when data is on disk.
import { FileError, type FileErrorCode, type FileSystem, type FileWriter } from "./index.js";
import { byName, checkRange, checkTruncate, pathParts } from "./paths.js";

/** What is used of a `File`. */
export interface OpfsFile {
  readonly size: number;
  slice(start: number, end: number): { arrayBuffer(): Promise<ArrayBuffer> };
}

/** What is used of a `FileSystemWritableFileStream`. */
export interface OpfsWritable {
  write(data: Uint8Array<ArrayBuffer>): Promise<void>;
  seek(position: number): Promise<void>;
  truncate(size: number): Promise<void>;
  close(): Promise<void>;
  abort(): Promise<void>;
}

/** What is used of a `FileSystemFileHandle`. `move` exists in some browsers only. */
export interface OpfsFileHandle {
  readonly kind: "file";
  readonly name: string;
  getFile(): Promise<OpfsFile>;
  createWritable(options?: { keepExistingData?: boolean }): Promise<OpfsWritable>;
}

/** What is used of a `FileSystemDirectoryHandle`. */
export interface OpfsDirectoryHandle {
  readonly kind: "directory";
  readonly name: string;
  getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<OpfsDirectoryHandle>;
  getFileHandle(name: string, options?: { create?: boolean }): Promise<OpfsFileHandle>;
  removeEntry(name: string, options?: { recursive?: boolean }): Promise<void>;
  values(): AsyncIterable<OpfsFileHandle | OpfsDirectoryHandle>;
}

type Movable = OpfsFileHandle & { move?(parent: OpfsDirectoryHandle, name: string): Promise<void> };

/** The part of the Web Locks API that keeps two tabs from creating one file. */
interface Locks {
  request<T>(name: string, use: () => Promise<T>): Promise<T>;
}

const causes: Readonly<Record<string, readonly [FileErrorCode, string]>> = {
  NotFoundError: ["missing", "no such file or directory"],
  QuotaExceededError: ["full", "no space left on the device (the browser's quota for this site is used up)"],
  NotAllowedError: ["denied", "permission denied"],
  NoModificationAllowedError: ["denied", "it is open elsewhere, in this page, a worker or another tab"],
  TypeMismatchError: ["other", "a directory was found where a file was expected, or the other way round"],
};

function fileError(error: unknown, operation: string, path: string): Error {
  if (error instanceof FileError || error instanceof RangeError) return error;
  const { name, message } = error as Error;
  const [code, detail] = causes[name] ?? ["other", message];
  return new FileError(code, operation, path, detail, { cause: error });
}

const nameOf = (error: unknown): string => (error as Error | undefined)?.name ?? "";
const isAbsent = (error: unknown): boolean =>
  nameOf(error) === "NotFoundError" || nameOf(error) === "TypeMismatchError";

/** Bytes copied at a time where a file cannot be moved. */
const copyBytes = 4 << 20;

async function copyFile(from: OpfsFileHandle, to: OpfsFileHandle): Promise<void> {
  const source = await from.getFile();
  const sink = await to.createWritable();
  try {
    for (let at = 0; at < source.size; at += copyBytes) {
      await sink.write(new Uint8Array(await source.slice(at, Math.min(source.size, at + copyBytes)).arrayBuffer()));
    }
    await sink.close();
  } catch (error) {
    await sink.abort().catch(() => undefined);
    throw error;
  }
}

async function copyDirectory(from: OpfsDirectoryHandle, to: OpfsDirectoryHandle): Promise<void> {
  for await (const entry of from.values()) {
    if (entry.kind === "file") await copyFile(entry, await to.getFileHandle(entry.name, { create: true }));
    else await copyDirectory(entry, await to.getDirectoryHandle(entry.name, { create: true }));
  }
}

/**
 * Files below a directory handle, such as `await navigator.storage.getDirectory()`. Needs `createWritable`
 * (Chrome 86, Firefox 111, Safari 26). What is written is seen by nobody before `close`, and dropped by `abort`.
 * A file is renamed by `move` where the browser has it, else copied; either way a reader sees the old content or the new.
 */
export function opfsFiles(root: OpfsDirectoryHandle): FileSystem {
  const directory = async (parts: readonly string[], create = false): Promise<OpfsDirectoryHandle> => {
    let at = root;
    for (const part of parts) at = await at.getDirectoryHandle(part, { create });
    return at;
  };
  const place = async (path: string, operation: string): Promise<[OpfsDirectoryHandle, string]> => {
    const parts = pathParts(path);
    const name = parts.pop();
    if (name === undefined) throw new FileError("other", operation, path, "it is the root directory");
    return [await directory(parts), name];
  };
  const find = async (path: string): Promise<OpfsFileHandle | OpfsDirectoryHandle | undefined> => {
    const parts = pathParts(path);
    const name = parts.pop();
    if (name === undefined) return root;
    try {
      const parent = await directory(parts);
      try {
        return await parent.getFileHandle(name);
      } catch (error) {
        if (nameOf(error) !== "TypeMismatchError") throw error;
        return await parent.getDirectoryHandle(name);
      }
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
  };
  const content = async (path: string): Promise<OpfsFile> => {
    const [parent, name] = await place(path, "read");
    return (await parent.getFileHandle(name)).getFile();
  };
  /** Runs an operation and names the path in whatever fails. */
  const named = async <T>(operation: string, path: string, run: () => Promise<T>): Promise<T> => {
    try {
      return await run();
    } catch (error) {
      throw fileError(error, operation, path);
    }
  };
  const openWriter = async (path: string, atEnd: boolean): Promise<FileWriter> => {
    const [parent, name] = await place(path, "write");
    const handle = await parent.getFileHandle(name, { create: true });
    const end = atEnd ? (await handle.getFile()).size : 0;
    let sink: OpfsWritable | undefined = await handle.createWritable({ keepExistingData: atEnd });
    if (end > 0) await sink.seek(end);
    const current = (): OpfsWritable => {
      if (!sink) throw new FileError("other", "write", path, "the writer is closed");
      return sink;
    };
    return {
      // A copy: the stream may read the bytes later, and refuses shared memory.
      write: (bytes) => named("write", path, () => current().write(new Uint8Array(bytes))),
      close: () =>
        named("write", path, async () => {
          const open = current();
          sink = undefined;
          await open.close();
        }),
      async abort() {
        const open = sink;
        sink = undefined;
        await open?.abort().catch(() => undefined);
      },
    };
  };

  return {
    stat: (path) =>
      named("look up", path, async () => {
        const found = await find(path);
        if (!found) return undefined;
        return { kind: found.kind, size: found.kind === "file" ? (await found.getFile()).size : 0 };
      }),

    read: (path) =>
      named("read", path, async () => {
        const file = await content(path);
        return new Uint8Array(await file.slice(0, file.size).arrayBuffer());
      }),

    readRange: (path, offset, length) =>
      named("read", path, async () => {
        const file = await content(path);
        checkRange(path, offset, length, file.size);
        return new Uint8Array(await file.slice(offset, offset + length).arrayBuffer());
      }),

    list: (path) =>
      named("list", path, async () => {
        const entries: { name: string; kind: "file" | "directory" }[] = [];
        for await (const { name, kind } of (await directory(pathParts(path))).values()) entries.push({ name, kind });
        return entries.sort(byName);
      }),

    makeDirectory: (path) =>
      named("make directory", path, async () => {
        try {
          await directory(pathParts(path), true);
        } catch (error) {
          if (nameOf(error) !== "TypeMismatchError") throw error;
          throw new FileError("exists", "make directory", path, "a file is in its place", { cause: error });
        }
      }),

    writer: (path, options) => named("write", path, () => openWriter(path, options?.append ?? false)),

    truncate: (path, size) =>
      named("truncate", path, async () => {
        const [parent, name] = await place(path, "truncate");
        const handle = await parent.getFileHandle(name);
        checkTruncate(path, size, (await handle.getFile()).size);
        const sink = await handle.createWritable({ keepExistingData: true });
        await sink.truncate(size);
        await sink.close();
      }),

    rename: (from, to) =>
      named("rename", from, async () => {
        const source = await find(from);
        if (!source) throw new FileError("missing", "rename", from, `no such file or directory (renaming to ${to})`);
        const there = await find(to);
        if (there && (source.kind === "directory" || there.kind === "directory")) {
          throw new FileError("exists", "rename", from, `a ${there.kind} is already at ${to}`);
        }
        const [target, name] = await place(to, "rename");
        if (pathParts(from).join("/") === pathParts(to).join("/")) return;
        if (source.kind === "file") {
          const { move } = source as Movable;
          if (move) {
            // Some browsers have `move` but refuse it here (over a file that exists, or outside the private file system).
            const moved = await move.call(source, target, name).then(
              () => true,
              () => false,
            );
            if (moved) return;
          }
          await copyFile(source, await target.getFileHandle(name, { create: true }));
        } else {
          await copyDirectory(source, await target.getDirectoryHandle(name, { create: true }));
        }
        const [parent, oldName] = await place(from, "rename");
        await parent.removeEntry(oldName, { recursive: true });
      }),

    remove: (path) =>
      named("remove", path, async () => {
        try {
          const [parent, name] = await place(path, "remove");
          await parent.removeEntry(name, { recursive: true });
        } catch (error) {
          if (!isAbsent(error)) throw error;
        }
      }),

    syncDirectory: (path) =>
      named("flush directory", path, async () => {
        await directory(pathParts(path));
      }),

    createExclusive: (path, bytes) =>
      named("create", path, async () => {
        const create = async (): Promise<boolean> => {
          if (await find(path)) return false;
          const writer = await openWriter(path, false);
          try {
            await writer.write(bytes);
            await writer.close();
            return true;
          } catch (error) {
            await writer.abort();
            const [parent, name] = await place(path, "create");
            await parent.removeEntry(name).catch(() => undefined);
            throw error;
          }
        };
        const { locks } = (globalThis as { navigator?: { locks?: Locks } }).navigator ?? {};
        return locks ? locks.request(`diffmamba:${pathParts(path).join("/")}`, create) : create();
      }),
  };
}
