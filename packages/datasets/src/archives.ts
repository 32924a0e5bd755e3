// Layer: datasets. Files inside archives: of a .zip, read in windows; of a .tar, which is read as a stream of whole files.
// Knows files only through the FileSystem interface.
import type { FileSystem } from "@diffmamba/files";
import { Unzip, UnzipInflate } from "fflate/browser";
import { createTarDecoder } from "modern-tar";
import type { ByteSource } from "./byte-source.js";
import { fileWindows, partsOf, streamOf } from "./streams.js";
import { StoreError } from "./token-source.js";

/** Not a folder, and not what macOS adds. */
const isFile = (name: string): boolean => !name.endsWith("/") && !name.startsWith("__MACOSX/");

async function* unzipped(
  files: FileSystem,
  path: string,
  wanted: (name: string) => boolean,
  single: boolean,
): AsyncGenerator<Uint8Array> {
  const out: Uint8Array[] = [];
  const found: string[] = [];
  let failed: unknown;
  let open = 0;
  let any = false;
  const unzip = new Unzip((file) => {
    any = true;
    if (!isFile(file.name) || !wanted(file.name)) return;
    found.push(file.name);
    open++;
    file.ondata = (error, data, final) => {
      failed ??= error ?? undefined;
      if (data?.length > 0) out.push(data);
      if (final) open--;
    };
    file.start();
  });
  unzip.register(UnzipInflate);
  const damaged = (cause: unknown) =>
    new StoreError(path, `its zip data is damaged or cut off (${(cause as Error)?.message ?? cause})`, { cause });
  for await (const window of fileWindows(files, path)) {
    try {
      unzip.push(window);
    } catch (error) {
      failed ??= error;
    }
    if (failed !== undefined) throw damaged(failed);
    if (single && found.length > 1) {
      throw new StoreError(
        path,
        `it holds more than one file (${found.join(", ")}, ...); unpack it and give one of them`,
      );
    }
    yield* out.splice(0);
  }
  if (open > 0) throw damaged("it ends inside a file");
  if (!any) throw new StoreError(path, "its name says zip, but its content is not; rename it if it is not packed");
  if (found.length === 0) throw new StoreError(path, "the file that was looked for is not in this zip");
}

/** The one file of a .zip. */
export function zipSource(files: FileSystem, path: string): AsyncIterable<Uint8Array> {
  return unzipped(files, path, () => true, true);
}

/**
 * A file of a .zip, by its name.
 * @throws StoreError, when read, where there is none, or the zip is damaged
 */
export function zipEntrySource(files: FileSystem, path: string, wanted: (name: string) => boolean): ByteSource {
  return { name: path, open: () => unzipped(files, path, wanted, false) };
}

/** Larger files in a .tar are refused: each is in memory as a whole. */
const largestTarFile = 1 << 28;

/**
 * The files of a .tar, in its order.
 * @param source the .tar, unpacked
 */
export async function* tarFiles(
  source: ByteSource,
): AsyncGenerator<{ readonly name: string; readonly content: Uint8Array }> {
  let underlying: unknown;
  const watched = async function* () {
    try {
      yield* source.open();
    } catch (error) {
      underlying = error;
      throw error;
    }
  };
  try {
    const entries = streamOf(watched()).pipeThrough(createTarDecoder({ strict: true }));
    for await (const { header, body } of partsOf(entries)) {
      if (header.type !== "file") {
        await body.cancel();
        continue;
      }
      if (header.size > largestTarFile) {
        throw new StoreError(
          source.name,
          `${header.name} in it holds ${header.size} bytes, more than ${largestTarFile}`,
        );
      }
      const content = new Uint8Array(header.size);
      let at = 0;
      for await (const part of partsOf(body)) {
        content.set(part, at);
        at += part.length;
      }
      if (at !== header.size) throw new Error(`it ends inside ${header.name}`);
      yield { name: header.name, content };
    }
  } catch (error) {
    if (underlying !== undefined) throw underlying;
    if (error instanceof StoreError) throw error;
    throw new StoreError(source.name, `its tar data is damaged or cut off (${(error as Error).message})`, {
      cause: error,
    });
  }
}
