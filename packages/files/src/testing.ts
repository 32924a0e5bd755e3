// Layer: files, for tests. Wraps a file system so that its n-th change fails, as a full disk, a killed process or a torn write would.
// Knows no platform; runs over any FileSystem.
import { FileError, type FileErrorCode, type FileSystem, type FileWriter } from "./index.js";

export interface FaultOptions {
  /** Which change fails, from 1 on; without it none does, and `operations` counts how many a run makes. */
  readonly failAt?: number;
  /**
   * `error`: that one operation fails and the program goes on, as with a full disk. `kill`: it and every later operation fail and
   * nothing more reaches the disk, as if the process had died there. `partial`: as `kill`, but a write first stores half of its bytes.
   */
  readonly mode?: "error" | "kill" | "partial";
  /** The code of the error of mode `error`; "full" unless told. */
  readonly code?: FileErrorCode;
}

export interface FaultyFiles extends FileSystem {
  /** Changes made or tried so far: writer, write, close, truncate, rename, remove, makeDirectory, syncDirectory, createExclusive. */
  readonly operations: number;
  /** One line for each of them, such as `rename a.tmp a`. */
  readonly log: readonly string[];
  /** Whether the fault has struck. */
  readonly failed: boolean;
}

/**
 * `inner` with a fault. After a kill look at what was left through `inner` itself; its open files have been let go.
 * To kill a save at every file operation, count them once without `failAt`, then run it once for each number.
 */
export function faultyFiles(inner: FileSystem, options: FaultOptions = {}): FaultyFiles {
  const { failAt = Infinity, mode = "error", code = "full" } = options;
  if (failAt < 1) throw new RangeError(`failAt counts from 1, got ${failAt}`);
  const log: string[] = [];
  const open = new Set<FileWriter>();
  let dead = false;
  let letGone = false;
  let failed = false;

  const killed = (operation: string, path: string): FileError =>
    new FileError("other", operation, path, `the process was killed here (operation ${failAt}, by a test)`);

  /** Counts an operation; where it is the one to fail, says with which error. */
  const fault = async (operation: string, path: string, detail = path): Promise<FileError | undefined> => {
    if (dead) return killed(operation, path);
    log.push(`${operation} ${detail}`);
    if (log.length !== failAt) return undefined;
    failed = true;
    if (mode === "error") {
      const text = code === "full" ? "no space left on the device" : `failed with code ${code}`;
      return new FileError(code, operation, path, `${text} (operation ${failAt}, by a test)`);
    }
    dead = true;
    return killed(operation, path);
  };
  /** A dead process lets go of its files; what it had written stays. */
  const letGo = async (): Promise<void> => {
    if (!dead || letGone) return;
    letGone = true;
    for (const writer of open) await writer.abort();
    open.clear();
  };
  const change = async <T>(operation: string, path: string, run: () => Promise<T>, detail?: string): Promise<T> => {
    const error = await fault(operation, path, detail);
    if (error) {
      await letGo();
      throw error;
    }
    return run();
  };
  const look = async <T>(path: string, run: () => Promise<T>): Promise<T> => {
    if (dead) throw killed("read", path);
    return run();
  };

  const watched = (writer: FileWriter, path: string): FileWriter => ({
    async write(bytes) {
      const error = await fault("write", path, `${path} ${bytes.length}`);
      if (!error) return writer.write(bytes);
      if (mode === "partial" && !letGone) await writer.write(bytes.subarray(0, bytes.length >> 1));
      await letGo();
      throw error;
    },
    close: () =>
      change("close", path, async () => {
        open.delete(writer);
        await writer.close();
      }),
    async abort() {
      open.delete(writer);
      await writer.abort();
    },
  });

  return {
    get operations() {
      return log.length;
    },
    get failed() {
      return failed;
    },
    log,
    stat: (path) => look(path, () => inner.stat(path)),
    read: (path) => look(path, () => inner.read(path)),
    readRange: (path, offset, length) => look(path, () => inner.readRange(path, offset, length)),
    list: (path) => look(path, () => inner.list(path)),
    makeDirectory: (path) => change("makeDirectory", path, () => inner.makeDirectory(path)),
    writer: (path, writerOptions) =>
      change("writer", path, async () => {
        const writer = await inner.writer(path, writerOptions);
        open.add(writer);
        return watched(writer, path);
      }),
    truncate: (path, size) => change("truncate", path, () => inner.truncate(path, size), `${path} ${size}`),
    rename: (from, to) => change("rename", from, () => inner.rename(from, to), `${from} ${to}`),
    remove: (path) => change("remove", path, () => inner.remove(path)),
    syncDirectory: (path) => change("syncDirectory", path, () => inner.syncDirectory(path)),
    async createExclusive(path, content) {
      const error = await fault("createExclusive", path);
      if (!error) return inner.createExclusive(path, content);
      if (mode === "partial" && !letGone) await inner.createExclusive(path, content.subarray(0, content.length >> 1));
      await letGo();
      throw error;
    },
  };
}
