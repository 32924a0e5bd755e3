// Layer: datasets. Documents: the texts of a file, a JSONL file, a parquet file, or a folder of them, one after the other and never all in
// memory. Knows files only through the FileSystem interface; knows no tokenizer.
import { FileError, type FileSystem, joinPath } from "@diffmamba/files";
import { type ByteSource, fileSource } from "./byte-source.js";
import { StoreError } from "./token-source.js";
import { Utf8Decoder, Utf8Error } from "./utf8.js";

/** A part of a document. */
export interface TextPart {
  readonly text: string;
  /** Whether the document ends behind it. */
  readonly ends: boolean;
}

/** Documents that can be read from the start more than once, the same each time. */
export interface TextSource {
  /** What it is, for messages and for the store's manifest. */
  readonly name: string;
  parts(): AsyncIterable<TextPart>;
}

export interface TextOptions {
  /** The field (JSONL) or column (parquet) that holds the text; "text" unless told. */
  readonly field?: string;
}

function notUtf8(error: unknown, name: string): unknown {
  if (!(error instanceof Utf8Error)) return error;
  return new StoreError(name, `byte ${error.position} is not UTF-8 text; convert the file`, { cause: error });
}

async function* decoded(source: ByteSource): AsyncGenerator<string> {
  const decoder = new Utf8Decoder();
  try {
    for await (const window of source.open()) yield decoder.push(window);
    decoder.end();
  } catch (error) {
    throw notUtf8(error, source.name);
  }
}

/** A whole file as one document. */
export function documentSource(source: ByteSource): TextSource {
  return {
    name: source.name,
    async *parts() {
      for await (const text of decoded(source)) yield { text, ends: false };
      yield { text: "", ends: true };
    },
  };
}

/** The lines of a text, without their ends; one that is empty at the end is none. */
export async function* linesOf(source: ByteSource): AsyncGenerator<string> {
  let rest = "";
  for await (const text of decoded(source)) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() as string;
    yield* lines;
  }
  if (rest !== "") yield rest;
}

/**
 * The texts of a JSONL file, one a line.
 * @throws StoreError, when read, naming the line that is no JSON or has no such text
 */
export function jsonLinesSource(source: ByteSource, { field = "text" }: TextOptions = {}): TextSource {
  return {
    name: source.name,
    async *parts() {
      let number = 0;
      for await (const line of linesOf(source)) {
        number++;
        if (line.trim() === "") continue;
        let row: unknown;
        try {
          row = JSON.parse(line);
        } catch (error) {
          throw new StoreError(source.name, `line ${number} is not JSON (${(error as Error).message})`, {
            cause: error,
          });
        }
        yield { text: textField(row, field, `line ${number}`, source.name), ends: true };
      }
    },
  };
}

function textField(row: unknown, field: string, place: string, name: string): string {
  const fields = typeof row === "object" && row !== null ? (row as Record<string, unknown>) : {};
  const text = Object.hasOwn(fields, field) ? fields[field] : undefined;
  if (typeof text === "string") return text;
  const there = Object.keys(fields).map((key) => JSON.stringify(key));
  throw new StoreError(
    name,
    `${place} has no text in ${JSON.stringify(field)}; it has ${there.length === 0 ? "no fields" : there.slice(0, 20).join(", ")}`,
  );
}

/** Rows that are read at once. */
const rowsAtOnce = 1000;

/**
 * The texts of a parquet file, one a row.
 * @throws StoreError, when read, naming the rows where the file is damaged or not UTF-8, or the columns that there are
 */
export function parquetSource(files: FileSystem, path: string, { field = "text" }: TextOptions = {}): TextSource {
  return {
    name: path,
    async *parts() {
      const found = await files.stat(path);
      if (found?.kind !== "file") throw new FileError("missing", "read", path, "no such file");
      // Loaded only when a parquet file is met.
      const [{ parquetMetadataAsync, parquetReadObjects }, { compressors }] = await Promise.all([
        import("hyparquet"),
        import("hyparquet-compressors"),
      ]);
      let underlying: unknown;
      const slice = async (start: number, end: number = found.size): Promise<ArrayBuffer> => {
        try {
          return (await files.readRange(path, start, end - start)).slice().buffer;
        } catch (error) {
          underlying = error;
          throw error;
        }
      };
      const file = { byteLength: found.size, slice };
      const guarded = async <T>(place: string, run: () => Promise<T>): Promise<T> => {
        try {
          return await run();
        } catch (error) {
          if (underlying !== undefined && !(underlying instanceof RangeError)) throw underlying;
          const cause = (error as Error).message;
          throw new StoreError(path, `${place}: its parquet data is damaged or cut off (${cause})`, { cause: error });
        }
      };
      const metadata = await guarded("the file's end", () => parquetMetadataAsync(file));
      const columns = metadata.schema.slice(1).map(({ name }) => name);
      if (!columns.includes(field)) {
        throw new StoreError(path, `there is no column ${JSON.stringify(field)}; it has ${columns.join(", ")}`);
      }
      const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      const parsers = { stringFromBytes: (bytes: Uint8Array) => bytes && strict.decode(bytes) };
      let first = 0;
      for (const group of metadata.row_groups) {
        const rows = Number(group.num_rows);
        for (let from = 0; from < rows; from += rowsAtOnce) {
          const rowStart = first + from;
          const rowEnd = first + Math.min(rows, from + rowsAtOnce);
          const options = {
            file,
            metadata,
            columns: [field],
            rowStart,
            rowEnd,
            compressors,
            parsers,
            useOffsetIndex: true,
          };
          const objects = await guarded(`rows ${rowStart} to ${rowEnd}`, () => parquetReadObjects(options));
          if (objects.length !== rowEnd - rowStart) {
            throw new StoreError(path, `rows ${rowStart} to ${rowEnd}: ${objects.length} of them could be read`);
          }
          for (const [i, row] of objects.entries()) {
            yield { text: textField(row, field, `row ${rowStart + i}`, path), ends: true };
          }
        }
        first += rows;
      }
    },
  };
}

const withoutPacking = (path: string): string => path.toLowerCase().replace(/\.(gz|xz|zip)$/, "");

/** How a file holds its documents, by its name. */
export function textKind(path: string): "jsonl" | "parquet" | "text" {
  const name = withoutPacking(path);
  return /\.(jsonl|ndjson)$/.test(name) ? "jsonl" : name.endsWith(".parquet") ? "parquet" : "text";
}

async function* filesBelow(files: FileSystem, folder: string): AsyncGenerator<string> {
  for (const { name, kind } of await files.list(folder)) {
    if (name.startsWith(".")) continue;
    const path = joinPath(folder, name);
    if (kind === "directory") yield* filesBelow(files, path);
    else yield path;
  }
}

/** Several sources as one, in their order. */
export function joinTexts(name: string, sources: readonly TextSource[]): TextSource {
  return {
    name,
    async *parts() {
      for (const source of sources) yield* source.parts();
    },
  };
}

/**
 * The documents of a path: the lines of a `.jsonl`, the rows of a `.parquet`, any other file as one document; of a folder, those of all its
 * files in the order of their names, hidden ones left out.
 * @throws FileError where there is nothing; StoreError for a folder without files
 */
export async function textSource(files: FileSystem, path: string, options: TextOptions = {}): Promise<TextSource> {
  const found = await files.stat(path);
  if (found === undefined) throw new FileError("missing", "read", path, "no such file or folder");
  if (found.kind === "directory") {
    const sources: TextSource[] = [];
    for await (const file of filesBelow(files, path)) sources.push(fileTexts(files, file, options));
    if (sources.length === 0) throw new StoreError(path, "the folder holds no files");
    return joinTexts(path, sources);
  }
  return fileTexts(files, path, options);
}

function fileTexts(files: FileSystem, path: string, options: TextOptions): TextSource {
  const kind = textKind(path);
  if (kind === "parquet") return parquetSource(files, path, options);
  return kind === "jsonl" ? jsonLinesSource(fileSource(files, path), options) : documentSource(fileSource(files, path));
}
