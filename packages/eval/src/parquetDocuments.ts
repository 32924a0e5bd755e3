// Layer: eval. The rows of a parquet file as documents, all columns, as plain values.
// Knows files through the file interface, and parquet through its library. Knows no task.
import { FileError, type FileSystem } from "@diffmamba/files";
import { TaskError } from "./task.js";
import type { Document } from "./template.js";

/** Whole numbers of 64 bits as numbers, dates as text: what JSON has. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)]));
}

/** @throws FileError where the file is missing; TaskError naming one that is damaged */
export async function readParquet(files: FileSystem, path: string): Promise<Document[]> {
  const found = await files.stat(path);
  if (found?.kind !== "file") throw new FileError("missing", "read", path, "no such file");
  // Loaded only when a parquet file is met.
  const [{ parquetMetadataAsync, parquetReadObjects }, { compressors }] = await Promise.all([
    import("hyparquet"),
    import("hyparquet-compressors"),
  ]);
  const slice = async (start: number, end = found.size) =>
    (await files.readRange(path, start, end - start)).slice().buffer;
  const file = { byteLength: found.size, slice };
  try {
    const metadata = await parquetMetadataAsync(file);
    const rows = await parquetReadObjects({ file, metadata, compressors });
    if (BigInt(rows.length) === metadata.num_rows) return rows.map((row) => plain(row) as Document);
    throw new Error(`${rows.length} of ${metadata.num_rows} rows could be read`);
  } catch (error) {
    if (error instanceof FileError && error.code !== "short") throw error;
    throw new TaskError(`${path}: its parquet data is damaged or cut off (${(error as Error).message}).`, {
      cause: error,
    });
  }
}
