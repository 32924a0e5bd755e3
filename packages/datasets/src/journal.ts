// Layer: datasets. How far a preparation has come, beside the files that it writes: an interrupted one is taken up from there.
// Knows no source and no tokenizer.
import { type FileSystem, joinPath, readJson, writeFileAtomic } from "@diffmamba/files";
import type { WriterState } from "./store-writer.js";

/** The file in the folder that is being written. */
export const journalFile = "progress.json";

export interface Journal {
  readonly version: 1;
  /** Of everything that decides what is written: another preparation does not take it up. */
  readonly fingerprint: string;
  /** Chunks whose ids are on the disk. */
  readonly chunks: number;
  /** SHA-256 of what has been read up to there, where the source's is not known beforehand. */
  readonly sha256: string | null;
  readonly written: WriterState;
}

/** What was left by an interrupted preparation of the same; undefined where there is nothing that can be used. */
export async function readJournal(
  files: FileSystem,
  folder: string,
  fingerprint: string,
): Promise<Journal | undefined> {
  const path = joinPath(folder, journalFile);
  if ((await files.stat(path)) === undefined) return undefined;
  try {
    const journal = (await readJson(files, path)) as Journal;
    return journal.version === 1 && journal.fingerprint === fingerprint ? journal : undefined;
  } catch {
    return undefined; // written by something else
  }
}

export async function writeJournal(files: FileSystem, folder: string, journal: Journal): Promise<void> {
  await writeFileAtomic(files, joinPath(folder, journalFile), `${JSON.stringify(journal)}\n`);
}
