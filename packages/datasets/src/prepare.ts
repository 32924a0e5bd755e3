// Layer: datasets. Prepares a file: one pass to measure it, one to encode it, both in windows, and its end held out as splits.
// Knows no data set by name (data-sets.ts), and not how a store is written (write-store.ts).
import { baseName } from "@diffmamba/files";
import { ByteTokenizer, CharacterTokenizer, collectCodePoints, type Tokenizer } from "@diffmamba/tokenizer";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { type ByteSource, fileSource } from "./byte-source.js";
import { Checker, type Checksums } from "./checksum.js";
import type { Piece } from "./chunks.js";
import { Strip, withoutNewlines } from "./stages.js";
import type { TokenStore } from "./store.js";
import { StoreError } from "./token-source.js";
import { continuesCharacter, Utf8Decoder, Utf8Error } from "./utf8.js";
import { checkPlace, everySplit, type WriteOptions, writeStore } from "./write-store.js";

/** A part of the source: a fraction of its bytes, or a number of them. */
export type Share = { readonly fraction: number } | { readonly bytes: number };

/** The last part of the source is the test split, the part before it the valid split; all the rest is the train split. */
export interface SplitRules {
  readonly valid?: Share;
  readonly test?: Share;
}

export interface PrepareProgress {
  /** "measure" reads the source once, "encode" a second time. */
  readonly phase: "measure" | "encode";
  /** Bytes of the source read so far in this phase, and all of them where that is known. */
  readonly bytes: number;
  readonly total?: number;
}

export interface PrepareOptions extends WriteOptions {
  /** A path (`.gz`, `.xz` and `.zip` are unpacked), or any source. */
  readonly source: string | ByteSource;
  /** The data set's name in the store; the source's name unless told. */
  readonly name?: string;
  /** A twentieth each for valid and test unless told; `{}` for one train split. */
  readonly splits?: SplitRules;
  /** Leaves out white space at both ends of each split. */
  readonly strip?: boolean;
  readonly onProgress?: (progress: PrepareProgress) => void;
}

export interface PrepareTextOptions extends PrepareOptions {
  /** The characters of the text itself, sorted, unless told. */
  readonly tokenizer?: Tokenizer;
}

export interface PrepareBytesOptions extends PrepareOptions {
  /** `all`: 256 ids (unless told). `seen`: an id for each byte value that the data holds, in their order. */
  readonly alphabet?: "all" | "seen";
  /** `drop` leaves every newline byte out, as the reference does with enwik8. `keep` unless told. */
  readonly newline?: "keep" | "drop";
}

/** What a source must be to carry the name of a data set. */
export interface Expected {
  readonly name: string;
  readonly bytes: number;
  readonly checksums: Checksums;
}

const ownName =
  "A part, or another text, must not carry the name of the whole: prepare it as a plain text or as bytes, under a name of its own";

const count = (value: number): string => value.toLocaleString("en-US");

interface Measured {
  readonly bytes: number;
  readonly sha256: string;
  /** Whether each byte value occurs (for bytes). */
  readonly seen: Uint8Array;
  /** Code points that occur (for text that brings its own alphabet). */
  readonly points: ReadonlySet<number>;
}

async function measure(
  source: ByteSource,
  asText: boolean,
  options: PrepareOptions,
  expected: Expected | undefined,
): Promise<Measured> {
  const hash = sha256.create();
  const checker = new Checker(expected?.checksums ?? {}, expected?.bytes ?? 0);
  const seen = new Uint8Array(256);
  const points = new Set<number>();
  const decoder = new Utf8Decoder();
  let bytes = 0;
  try {
    for await (const window of source.open()) {
      options.signal?.throwIfAborted();
      hash.update(window);
      checker.update(window);
      if (asText) collectCodePoints(decoder.push(window), points);
      else for (let i = 0; i < window.length; i++) seen[window[i] as number] = 1;
      bytes += window.length;
      options.onProgress?.({ phase: "measure", bytes });
    }
    if (asText) decoder.end();
  } catch (error) {
    throw notUtf8(error, source.name);
  }
  if (bytes === 0) throw new StoreError(source.name, "it is empty (0 bytes): there is nothing to prepare");
  if (expected !== undefined) {
    const size =
      bytes === expected.bytes
        ? undefined
        : `it holds ${count(bytes)} bytes, and ${expected.name} has ${count(expected.bytes)}`;
    const wrong = size ?? checker.difference();
    if (wrong !== undefined) throw new StoreError(source.name, `this is not ${expected.name}: ${wrong}. ${ownName}`);
  }
  return { bytes, sha256: bytesToHex(hash.digest()), seen, points };
}

interface SplitRange {
  readonly name: string;
  /** Where it ends in the source, in bytes. */
  readonly end: number;
}

function splitRanges(source: ByteSource, total: number, rules: SplitRules): SplitRange[] {
  const size = (name: string, share: Share | undefined): number => {
    if (!share) return 0;
    const bytes = "bytes" in share ? share.bytes : Math.floor(share.fraction * total);
    const sound =
      "bytes" in share ? Number.isSafeInteger(bytes) && bytes > 0 : share.fraction > 0 && share.fraction < 1;
    if (!sound) {
      throw new RangeError(
        `split "${name}" wants { bytes: a whole number above 0 } or { fraction: between 0 and 1 }, got ${JSON.stringify(share)}`,
      );
    }
    if (bytes === 0)
      throw new StoreError(source.name, `split "${name}" would be empty: the source has ${total} bytes; ${everySplit}`);
    return bytes;
  };
  const valid = size("valid", rules.valid);
  const test = size("test", rules.test);
  const train = total - valid - test;
  if (train <= 0) {
    throw new StoreError(
      source.name,
      `nothing is left to train on: valid (${valid} bytes) and test (${test}) take all of the source's ${total} bytes`,
    );
  }
  const ranges: SplitRange[] = [{ name: "train", end: train }];
  if (valid > 0) ranges.push({ name: "valid", end: train + valid });
  if (test > 0) ranges.push({ name: "test", end: total });
  return ranges;
}

interface Plan {
  readonly source: ByteSource;
  readonly measured: Measured;
  readonly tokenizer: Tokenizer;
  readonly isText: boolean;
  readonly newline: "keep" | "drop";
}

/** What a split's bytes become on their way: stripped, without newlines, text. */
class SplitStages {
  readonly #strip: Strip | undefined;
  readonly #decoder = new Utf8Decoder();

  constructor(
    readonly split: string,
    readonly plan: Plan,
    strip: boolean,
  ) {
    this.#strip = strip ? new Strip() : undefined;
  }

  push(bytes: Uint8Array): Piece[] {
    const { split } = this;
    return (this.#strip?.push(bytes) ?? [bytes]).map((part) => {
      if (this.plan.isText) return { split, text: this.#decode(() => this.#decoder.push(part)), ends: false };
      return { split, bytes: this.plan.newline === "drop" ? withoutNewlines(part) : part };
    });
  }

  /** @throws StoreError where the split ends inside a character */
  end(): void {
    this.#decode(() => {
      this.#decoder.end();
      return "";
    });
  }

  #decode(run: () => string): string {
    try {
      return run();
    } catch (error) {
      throw notUtf8(error, `${this.plan.source.name} (split "${this.split}")`);
    }
  }
}

/** The second pass: the source cut into splits. */
async function* piecesOf(plan: Plan, ranges: readonly SplitRange[], options: PrepareOptions): AsyncGenerator<Piece> {
  const { source, measured, isText } = plan;
  const ends = ranges.map(({ end }) => end);
  let index = 0;
  let position = 0;
  const begin = () => new SplitStages((ranges[index] as SplitRange).name, plan, options.strip ?? false);
  let stages = begin();
  for await (const window of source.open()) {
    options.signal?.throwIfAborted();
    for (let from = 0; from < window.length; ) {
      const last = index === ranges.length - 1;
      if (!last && position >= (ends[index] as number)) {
        // A text is cut behind the character that a boundary falls into.
        if (isText && continuesCharacter(window[from] as number)) ends[index] = (ends[index] as number) + 1;
        else {
          stages.end();
          index++;
          stages = begin();
          continue;
        }
      }
      const to = last ? window.length : Math.min(window.length, from + (ends[index] as number) - position);
      yield* stages.push(window.subarray(from, to));
      position += to - from;
      from = to;
    }
    options.onProgress?.({ phase: "encode", bytes: position, total: measured.bytes });
  }
  if (position !== measured.bytes) {
    throw new StoreError(
      source.name,
      `it changed while it was read: ${measured.bytes} bytes at first, then ${position}`,
    );
  }
  if (index !== ranges.length - 1) {
    throw new StoreError(source.name, `split "${ranges[index + 1]?.name}" would be empty; ${everySplit}`);
  }
  stages.end();
}

function notUtf8(error: unknown, name: string): unknown {
  if (!(error instanceof Utf8Error)) return error;
  const detail = `byte ${error.position} is not UTF-8 text; convert the file, or prepare it as bytes`;
  return new StoreError(name, detail, { cause: error });
}

async function write(plan: Plan, options: PrepareOptions): Promise<TokenStore> {
  const { source, measured, tokenizer, newline } = plan;
  const ranges = splitRanges(
    source,
    measured.bytes,
    options.splits ?? { valid: { fraction: 0.05 }, test: { fraction: 0.05 } },
  );
  return writeStore(
    {
      name: options.name ?? baseName(source.name),
      sourceName: source.name,
      tokenizer,
      pieces: () => piecesOf(plan, ranges, options),
      source: { name: baseName(source.name), bytes: measured.bytes, sha256: measured.sha256 },
      options: { strip: options.strip ?? false, newline },
      documents: false,
      splits: ranges.map(({ name }) => name),
      settings: ranges,
    },
    options,
  );
}

async function start(options: PrepareOptions): Promise<ByteSource> {
  await checkPlace(options);
  return typeof options.source === "string" ? fileSource(options.files, options.source) : options.source;
}

/**
 * Makes a token store from a UTF-8 text, which may be larger than memory.
 * @throws StoreError naming the source where it is empty, no UTF-8, or too small for its splits; UnknownSymbolError naming a
 * character that `tokenizer` lacks; FileError for anything that happens to a file. Nothing is left behind then.
 */
export async function prepareText(options: PrepareTextOptions, expected?: Expected): Promise<TokenStore> {
  const source = await start(options);
  const measured = await measure(source, options.tokenizer === undefined, options, expected);
  const tokenizer = options.tokenizer ?? CharacterTokenizer.fromCodePoints(measured.points);
  return write({ source, measured, tokenizer, isText: true, newline: "keep" }, options);
}

/**
 * Makes a token store from any file, a token a byte.
 * @throws as {@link prepareText}
 */
export async function prepareBytes(options: PrepareBytesOptions, expected?: Expected): Promise<TokenStore> {
  const { alphabet = "all", newline = "keep" } = options;
  const source = await start(options);
  const measured = await measure(source, false, options, expected);
  if (newline === "drop") measured.seen[0x0a] = 0;
  const seen = [...measured.seen.keys()].filter((value) => measured.seen[value] === 1);
  if (seen.length === 0) throw new StoreError(source.name, "it holds nothing but newlines, which are to be left out");
  const tokenizer = new ByteTokenizer(alphabet === "seen" ? seen : undefined);
  return write({ source, measured, tokenizer, isText: false, newline }, options);
}
