// Layer: datasets. Where data comes from: a file read in windows, unpacked on the way where it is .gz, .xz or .zip; or bytes in memory.
// Knows files only through the FileSystem interface, and runs in a browser.
import type { FileSystem } from "@diffmamba/files";
import { fileWindows, partsOf, streamOf, windowBytes } from "./streams.js";
import { StoreError } from "./token-source.js";

/** Bytes that can be read from the start more than once. */
export interface ByteSource {
  /** What it is, for messages and for the store's manifest: a path, or any name. */
  readonly name: string;
  /** The bytes in windows of any size, none of which is kept. */
  open(): AsyncIterable<Uint8Array>;
}

type Unpacker = (packed: ReadableStream<Uint8Array>) => Promise<ReadableStream<Uint8Array>>;

interface Packing {
  readonly name: string;
  readonly magic: readonly number[];
  readonly unpack: Unpacker;
}

const packings: Readonly<Record<string, Packing>> = {
  gz: {
    name: "gzip",
    magic: [0x1f, 0x8b],
    async unpack(packed) {
      const unpacker: ReadableWritablePair<Uint8Array, Uint8Array> = new DecompressionStream("gzip") as never;
      return packed.pipeThrough(unpacker);
    },
  },
  xz: {
    name: "xz",
    magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
    async unpack(packed) {
      // WebAssembly, loaded only when an .xz is met. The package is CommonJS: bundlers differ in where they put its exports.
      const module = (await import("xz-decompress")) as unknown as XzModule;
      const Stream = module.XzReadableStream ?? module.default?.XzReadableStream;
      if (!Stream) throw new Error("the package xz-decompress was loaded, but has no XzReadableStream");
      return new Stream(packed);
    },
  },
};

type XzConstructor = new (packed: ReadableStream<Uint8Array>) => ReadableStream<Uint8Array>;
interface XzModule {
  readonly XzReadableStream?: XzConstructor;
  readonly default?: { readonly XzReadableStream?: XzConstructor };
}

/** Packed forms that are not read here, with the command that unpacks them. */
const foreign: Readonly<Record<string, string>> = { bz2: "bunzip2", zst: "unzstd", "7z": "7z x" };

async function* unpacked(
  files: FileSystem,
  path: string,
  packing: Packing,
  window: number,
): AsyncGenerator<Uint8Array> {
  const size = (await files.stat(path))?.size ?? 0;
  const head = size >= packing.magic.length ? await files.readRange(path, 0, packing.magic.length) : new Uint8Array(0);
  if (size > 0 && !packing.magic.every((byte, i) => head[i] === byte)) {
    throw new StoreError(path, `its name says ${packing.name}, but its content is not; rename it if it is not packed`);
  }
  if (size === 0) {
    yield* fileWindows(files, path, window); // names a missing file; an empty one gives nothing
    return;
  }
  let source: unknown;
  const watched = async function* () {
    try {
      yield* fileWindows(files, path, window);
    } catch (error) {
      source = error;
      throw error;
    }
  };
  try {
    yield* partsOf(await packing.unpack(streamOf(watched())));
  } catch (error) {
    if (source) throw source;
    const cause = error instanceof Error ? error.message : String(error);
    throw new StoreError(path, `its ${packing.name} data is damaged or cut off (${cause})`, { cause: error });
  }
}

/** The one file of a .zip; what reads zips is loaded only when one is met. */
async function* unzippedFile(files: FileSystem, path: string): AsyncGenerator<Uint8Array> {
  const { zipSource } = await import("./archives.js");
  yield* zipSource(files, path);
}

/**
 * A file, read in windows. `.gz`, `.xz` and a `.zip` of one file are unpacked on the way; other packed forms are refused with the command that unpacks them.
 * @throws StoreError or FileError, when read, naming the file
 */
export function fileSource(
  files: FileSystem,
  path: string,
  options: { readonly windowBytes?: number } = {},
): ByteSource {
  const window = options.windowBytes ?? windowBytes;
  const extension = /\.([^./]+)$/.exec(path)?.[1]?.toLowerCase() ?? "";
  const packing = Object.hasOwn(packings, extension) ? packings[extension] : undefined;
  const command = Object.hasOwn(foreign, extension) ? foreign[extension] : undefined;
  return {
    name: path,
    open() {
      if (command) throw new StoreError(path, `.${extension} files are not read; unpack it first (${command} ${path})`);
      if (extension === "zip") return unzippedFile(files, path);
      return packing ? unpacked(files, path, packing, window) : fileWindows(files, path, window);
    },
  };
}

/** Bytes, or a text as UTF-8, in memory. */
export function memorySource(name: string, content: Uint8Array | string): ByteSource {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return {
    name,
    async *open() {
      for (let at = 0; at < bytes.length; at += windowBytes) yield bytes.subarray(at, at + windowBytes);
    },
  };
}

/** Several sources as one, in their order. */
export function joinSources(name: string, sources: readonly ByteSource[]): ByteSource {
  return {
    name,
    async *open() {
      for (const source of sources) yield* source.open();
    },
  };
}
