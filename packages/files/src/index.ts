// The one door to files: what the packages need of a file system, and nothing more.
// Implementations are in ./node (disk), ./opfs (a browser's private file system) and ./memory (tests, small browser pages);
// ./testing wraps any of them so that an operation of choice fails.
// Knows no tensor, no format and no package of the house.

/** A file being written. Nothing is promised to be on disk before `close` has resolved. */
export interface FileWriter {
  /** Appends bytes. They may be reused by the caller once the promise has resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /** Flushes to stable storage and closes. */
  close(): Promise<void>;
  /** Closes without promising anything of what was written; never throws, and after `close` does nothing. */
  abort(): Promise<void>;
}

export interface FileEntry {
  readonly name: string;
  readonly kind: "file" | "directory";
}

/**
 * The operations every store, checkpoint and run folder is built from. Paths are strings with `/` between their parts.
 * Every failure is a {@link FileError} that names the operation and the path.
 */
export interface FileSystem {
  /** Kind and bytes of a path (0 for a directory), or undefined where nothing is. */
  stat(path: string): Promise<{ readonly kind: "file" | "directory"; readonly size: number } | undefined>;
  /** The whole file. */
  read(path: string): Promise<Uint8Array>;
  /** Exactly `length` bytes from `offset`; throws `FileError` with code "short" where the file ends before. */
  readRange(path: string, offset: number, length: number): Promise<Uint8Array>;
  /** The entries of a directory, sorted by name. */
  list(path: string): Promise<FileEntry[]>;
  /** Makes a directory and its parents; one that exists is fine. */
  makeDirectory(path: string): Promise<void>;
  /** Opens a file for writing, empty, or at its end with `append`. Its directory must exist. */
  writer(path: string, options?: { readonly append?: boolean }): Promise<FileWriter>;
  /** Cuts a file to `size` bytes; throws `FileError` with code "short" where it holds fewer. */
  truncate(path: string, size: number): Promise<void>;
  /** Moves a file or a directory. A file replaces a file at `to` in one step; anything else at `to` is an error ("exists"). */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a directory with all that is in it; where nothing is, does nothing. */
  remove(path: string): Promise<void>;
  /** Makes renames and new entries of a directory durable. A no-op where the platform has no such thing. */
  syncDirectory(path: string): Promise<void>;
  /** Creates a file that must not exist yet, with this content. @returns false where it existed */
  createExclusive(path: string, content: Uint8Array): Promise<boolean>;
}

/** Why a file operation failed. `full`: no space left; `short`: the file ends before the range asked for. */
export type FileErrorCode = "missing" | "full" | "denied" | "short" | "exists" | "other";

/** A failed file operation. The message names the operation, the path and the cause. */
export class FileError extends Error {
  override readonly name = "FileError";
  constructor(
    readonly code: FileErrorCode,
    readonly operation: string,
    readonly path: string,
    detail: string,
    options?: ErrorOptions,
  ) {
    super(`cannot ${operation} ${path}: ${detail}`, options);
  }
}

/** Joins path parts with single slashes. */
export function joinPath(...parts: readonly string[]): string {
  return parts
    .filter((part) => part !== "")
    .map((part, i) => (i === 0 ? part.replace(/(?<=.)\/+$/, "") : part.replace(/^\/+|\/+$/g, "")))
    .join("/")
    .replace(/^\/\//, "/");
}

/** The part after the last slash. */
export function baseName(path: string): string {
  const clean = path.replace(/\/+$/, "");
  return clean.slice(clean.lastIndexOf("/") + 1);
}

/** The part before the last slash, "." where there is none. */
export function parentPath(path: string): string {
  const clean = path.replace(/(?<=.)\/+$/, "");
  const cut = clean.lastIndexOf("/");
  return cut < 0 ? "." : cut === 0 ? "/" : clean.slice(0, cut);
}

/** Reads a UTF-8 text file. */
export async function readText(files: FileSystem, path: string): Promise<string> {
  return new TextDecoder().decode(await files.read(path));
}

/**
 * Reads a JSON file.
 * @throws FileError naming the file where it is missing or does not hold JSON
 */
export async function readJson(files: FileSystem, path: string): Promise<unknown> {
  const text = await readText(files, path);
  try {
    return JSON.parse(text);
  } catch (error) {
    const cause = text.trim() === "" ? "the file is empty" : (error as Error).message;
    throw new FileError("other", "read", path, `it does not hold JSON (${cause})`, { cause: error });
  }
}

/** Writes a whole file beside its place and renames it into place: a reader sees the old content or the new, never a part. */
export async function writeFileAtomic(files: FileSystem, path: string, content: Uint8Array | string): Promise<void> {
  const temporary = `${path}.tmp`;
  const writer = await files.writer(temporary);
  try {
    await writer.write(typeof content === "string" ? new TextEncoder().encode(content) : content);
    await writer.close();
  } catch (error) {
    await writer.abort();
    await files.remove(temporary).catch(() => undefined);
    throw error;
  }
  await files.rename(temporary, path);
  await files.syncDirectory(parentPath(path));
}
