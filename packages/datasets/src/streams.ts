// Layer: datasets. Bytes in windows as streams and back, and a file's bytes in windows.
// Knows files only through the FileSystem interface.
import { FileError, type FileSystem } from "@diffmamba/files";

/** Bytes of a file that are read at once. */
export const windowBytes = 1 << 20;

/** A file's bytes in windows. */
export async function* fileWindows(
  files: FileSystem,
  path: string,
  window: number = windowBytes,
): AsyncGenerator<Uint8Array> {
  const found = await files.stat(path);
  if (!found) throw new FileError("missing", "read", path, "no such file");
  if (found.kind === "directory")
    throw new FileError("other", "read", path, "it is a directory; a data file was expected");
  for (let at = 0; at < found.size; at += window) yield files.readRange(path, at, Math.min(window, found.size - at));
}

export function streamOf(windows: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = windows[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/** The parts of a stream; leaving early cancels it. (Not every browser's streams can be iterated.) */
export async function* partsOf<T>(stream: ReadableStream<T>): AsyncGenerator<T> {
  const reader = stream.getReader();
  let finished = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield value;
    }
    finished = true;
  } catch (error) {
    finished = true;
    throw error;
  } finally {
    if (!finished) await reader.cancel().catch(() => undefined);
  }
}
