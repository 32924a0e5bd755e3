// Layer: train. Files of one JSON object a line, each with its step: read in windows, cut behind a step, appended durably.
// Knows files. Knows only one member of a line, its step.

import type { FileSystem } from "@diffmamba/files";
import { isObject } from "./json.js";

const WINDOW = 1 << 16;
const NEWLINE = 0x0a;

/** A line with the bytes that it covers, its newline included. */
interface Line {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** False for a last line without a newline: half-written. */
  readonly whole: boolean;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

async function* linesOf(files: FileSystem, path: string): AsyncGenerator<Line> {
  const size = (await files.stat(path))?.size ?? 0;
  const decoder = new TextDecoder();
  let begun: Uint8Array[] = [];
  let start = 0;
  for (let at = 0; at < size; at += WINDOW) {
    const window = await files.readRange(path, at, Math.min(WINDOW, size - at));
    let from = 0;
    for (let end = window.indexOf(NEWLINE); end >= 0; end = window.indexOf(NEWLINE, from)) {
      const text = decoder.decode(joined([...begun, window.subarray(from, end)]));
      yield { text, start, end: at + end + 1, whole: true };
      begun = [];
      from = end + 1;
      start = at + from;
    }
    begun.push(window.subarray(from));
  }
  if (start < size) yield { text: decoder.decode(joined(begun)), start, end: size, whole: false };
}

function parsed({ text, whole }: Line): { readonly step: number } | undefined {
  if (!whole) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && typeof value.step === "number" ? (value as { step: number }) : undefined;
  } catch {
    return undefined;
  }
}

/** The objects of a file in their order, up to the first line that is damaged or half-written; none where there is no file. */
export async function* readJsonLines<T extends { readonly step: number }>(
  files: FileSystem,
  path: string,
): AsyncGenerator<T> {
  for await (const line of linesOf(files, path)) {
    const value = parsed(line);
    if (value === undefined) return;
    yield value as T;
  }
}

/** Cuts a file behind the lines of `step`; what is damaged or half-written goes too. Where there is no file, does nothing. */
export async function cutJsonLines(files: FileSystem, path: string, step: number): Promise<void> {
  for await (const line of linesOf(files, path)) {
    const value = parsed(line);
    if (value !== undefined && value.step <= step) continue;
    await files.truncate(path, line.start);
    return;
  }
}

/** Collects lines and appends them to a file. */
export class JsonLinesWriter {
  #waiting: string[] = [];

  constructor(
    readonly files: FileSystem,
    readonly path: string,
  ) {}

  add(line: object): void {
    this.#waiting.push(`${JSON.stringify(line)}\n`);
  }

  /** Appends what waits; when this has resolved it is on disk. @throws FileError */
  async flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    const bytes = new TextEncoder().encode(this.#waiting.join(""));
    this.#waiting = [];
    const writer = await this.files.writer(this.path, { append: true });
    try {
      await writer.write(bytes);
      await writer.close();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }
}
