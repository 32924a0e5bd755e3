// Layer: datasets. Makes a token store from a source: one pass to measure it, one to encode it, both in windows; the store appears
// under its name only when it is whole. Knows no data set by name (data-sets.ts).
import { baseName, type FileSystem, type FileWriter, joinPath, parentPath, writeFileAtomic } from "@diffmamba/files";
import {
  ByteTokenizer,
  CharacterTokenizer,
  collectCodePoints,
  saveTokenizer,
  type Tokenizer,
} from "@diffmamba/tokenizer";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { type ByteSource, fileSource } from "./byte-source.js";
import { ByteEncoder, type Encoder, Strip, TextEncoderStage, withoutNewlines } from "./encode-stage.js";
import { type SplitManifest, type StoreManifest, storeFile, storeFormat, TokenStore } from "./store.js";
import { packTokens, StoreError, type TokenType, tokenTypeFor } from "./token-source.js";
import { continuesCharacter, Utf8Decoder, Utf8Error } from "./utf8.js";

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

export interface PrepareOptions {
  readonly files: FileSystem;
  /** A path (`.gz` and `.xz` are unpacked), or any source. */
  readonly source: string | ByteSource;
  /** The store's folder. Its parents are made. */
  readonly out: string;
  /** The data set's name in the store; the source's name unless told. */
  readonly name?: string;
  /** A twentieth each for valid and test unless told; `{}` for one train split. */
  readonly splits?: SplitRules;
  /** Leaves out white space at both ends of each split. */
  readonly strip?: boolean;
  /** Replaces a store that is there. */
  readonly overwrite?: boolean;
  readonly onProgress?: (progress: PrepareProgress) => void;
  readonly signal?: AbortSignal;
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

const everySplit = "a store holds at least one token in every split";

/** Bytes that are collected before they are written. */
const writeBytes = 1 << 20;

interface Measured {
  readonly bytes: number;
  readonly sha256: string;
  /** Whether each byte value occurs (for bytes). */
  readonly seen: Uint8Array;
  /** Code points that occur (for text that brings its own alphabet). */
  readonly points: ReadonlySet<number>;
}

async function measure(source: ByteSource, asText: boolean, options: PrepareOptions): Promise<Measured> {
  const hash = sha256.create();
  const seen = new Uint8Array(256);
  const points = new Set<number>();
  const decoder = new Utf8Decoder();
  let bytes = 0;
  try {
    for await (const window of source.open()) {
      options.signal?.throwIfAborted();
      hash.update(window);
      if (asText) collectCodePoints(decoder.push(window), points);
      else for (let i = 0; i < window.length; i++) seen[window[i] as number] = 1;
      bytes += window.length;
      options.onProgress?.({ phase: "measure", bytes });
    }
    if (asText) decoder.end();
  } catch (error) {
    if (!(error instanceof Utf8Error)) throw error;
    throw new StoreError(
      source.name,
      `byte ${error.position} is not UTF-8 text; convert the file, or prepare it as bytes`,
      { cause: error },
    );
  }
  if (bytes === 0) throw new StoreError(source.name, "it is empty (0 bytes): there is nothing to prepare");
  return { bytes, sha256: bytesToHex(hash.digest()), seen, points };
}

interface SplitRange {
  readonly name: string;
  /** Where it ends in the source, in bytes. Moved to the end of a character while a text is read. */
  end: number;
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

/** Writes one split: bytes in, ids out into a file. */
class SplitWriter {
  tokens = 0;
  bytes = 0;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;

  constructor(
    readonly writer: FileWriter,
    readonly encoder: Encoder,
    readonly dtype: TokenType,
    readonly strip: Strip | undefined,
    readonly dropNewlines: boolean,
  ) {}

  async push(bytes: Uint8Array): Promise<void> {
    for (const part of this.strip ? this.strip.push(bytes) : [bytes]) {
      const kept = this.dropNewlines ? withoutNewlines(part) : part;
      this.bytes += kept.length;
      await this.#write(this.encoder.push(kept));
    }
  }

  async #write(ids: Int32Array, flush = false): Promise<void> {
    const packed = packTokens(ids, this.dtype);
    this.tokens += ids.length;
    this.#waiting.push(packed);
    this.#waitingBytes += packed.length;
    if (!flush && this.#waitingBytes < writeBytes) return;
    for (const part of this.#waiting) await this.writer.write(part);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  async end(): Promise<void> {
    await this.#write(this.encoder.end(), true);
    await this.writer.close();
  }
}

interface Plan {
  readonly source: ByteSource;
  readonly measured: Measured;
  readonly tokenizer: Tokenizer;
  readonly isText: boolean;
  readonly newline: "keep" | "drop";
}

/** The second pass: every split encoded into its file in `folder`. */
async function encodeSplits(plan: Plan, folder: string, dtype: TokenType, options: PrepareOptions) {
  const { source, measured, tokenizer, isText, newline } = plan;
  const ranges = splitRanges(
    source,
    measured.bytes,
    options.splits ?? { valid: { fraction: 0.05 }, test: { fraction: 0.05 } },
  );
  const splits: Record<string, SplitManifest> = {};
  let current: SplitWriter | undefined;
  let index = 0;
  let position = 0;

  const range = (): SplitRange => ranges[index] as SplitRange;
  const begin = async () => {
    const name = `${source.name} (split "${range().name}")`;
    const encoder =
      !isText && tokenizer instanceof ByteTokenizer
        ? new ByteEncoder(tokenizer, name)
        : new TextEncoderStage(tokenizer, name);
    const writer = await options.files.writer(joinPath(folder, `${range().name}.${dtype}`));
    current = new SplitWriter(writer, encoder, dtype, options.strip ? new Strip() : undefined, newline === "drop");
  };
  const finish = async () => {
    const { name } = range();
    await current?.end();
    if (!current || current.tokens === 0)
      throw new StoreError(source.name, `split "${name}" has no tokens; ${everySplit}`);
    splits[name] = { file: `${name}.${dtype}`, tokens: current.tokens, bytes: current.bytes };
    current = undefined;
    index++;
  };

  try {
    await begin();
    for await (const window of source.open()) {
      options.signal?.throwIfAborted();
      for (let from = 0; from < window.length; ) {
        const last = index === ranges.length - 1;
        if (!last && position >= range().end) {
          if (isText && continuesCharacter(window[from] as number)) range().end++;
          else {
            await finish();
            await begin();
            continue;
          }
        }
        const to = last ? window.length : Math.min(window.length, from + range().end - position);
        await current?.push(window.subarray(from, to));
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
    await finish();
  } finally {
    await current?.writer.abort();
  }
  return splits;
}

/** Puts a finished folder in its place; an older store stays whole until the new one is there. */
async function publish(files: FileSystem, temporary: string, out: string, overwrite: boolean): Promise<void> {
  const old = `${out}.old`;
  const replaces = overwrite && (await files.stat(out)) !== undefined;
  if (replaces) {
    await files.remove(old);
    await files.rename(out, old);
  }
  try {
    await files.rename(temporary, out);
  } catch (error) {
    if (replaces) await files.rename(old, out).catch(() => undefined);
    throw error;
  }
  await files.syncDirectory(parentPath(out));
  if (replaces) await files.remove(old);
}

async function writeStore(plan: Plan, options: PrepareOptions): Promise<TokenStore> {
  const { files, out, overwrite = false } = options;
  const { source, measured, tokenizer } = plan;
  const temporary = `${out}.tmp`;
  await files.remove(temporary);
  await files.makeDirectory(temporary);
  try {
    const dtype = tokenTypeFor(tokenizer.vocabSize);
    const splits = await encodeSplits(plan, temporary, dtype, options);
    await saveTokenizer(files, temporary, tokenizer);
    const fingerprint = sha256(new TextEncoder().encode(JSON.stringify(tokenizer)));
    const manifest: StoreManifest = {
      format: storeFormat,
      version: 1,
      name: options.name ?? baseName(source.name),
      dtype,
      vocabSize: tokenizer.vocabSize,
      source: { name: baseName(source.name), bytes: measured.bytes, sha256: measured.sha256 },
      tokenizer: { kind: tokenizer.kind, sha256: bytesToHex(fingerprint) },
      options: { strip: options.strip ?? false, newline: plan.newline },
      splits,
    };
    await writeFileAtomic(files, joinPath(temporary, storeFile), `${JSON.stringify(manifest, null, 2)}\n`);
    await publish(files, temporary, out, overwrite);
  } catch (error) {
    await files.remove(temporary).catch(() => undefined);
    throw error;
  }
  return TokenStore.open(files, out);
}

async function start(options: PrepareOptions): Promise<ByteSource> {
  const { files, out, source, overwrite } = options;
  if (!overwrite && (await files.stat(out))) {
    throw new StoreError(out, "something is already there; choose another folder, or say that it may be overwritten");
  }
  return typeof source === "string" ? fileSource(files, source) : source;
}

/** Checks a source before it is encoded, and gives its name in the store; for data sets of a known size. */
export type CheckSource = (source: ByteSource, bytes: number) => void;

/**
 * Makes a token store from a UTF-8 text, which may be larger than memory.
 * @throws StoreError naming the source where it is empty, no UTF-8, or too small for its splits; UnknownSymbolError naming a
 * character that `tokenizer` lacks; FileError for anything that happens to a file. Nothing is left behind then.
 */
export async function prepareText(options: PrepareTextOptions, check?: CheckSource): Promise<TokenStore> {
  const source = await start(options);
  const measured = await measure(source, options.tokenizer === undefined, options);
  check?.(source, measured.bytes);
  const tokenizer = options.tokenizer ?? CharacterTokenizer.fromCodePoints(measured.points);
  return writeStore({ source, measured, tokenizer, isText: true, newline: "keep" }, options);
}

/**
 * Makes a token store from any file, a token a byte.
 * @throws as {@link prepareText}
 */
export async function prepareBytes(options: PrepareBytesOptions, check?: CheckSource): Promise<TokenStore> {
  const { alphabet = "all", newline = "keep" } = options;
  const source = await start(options);
  const measured = await measure(source, false, options);
  check?.(source, measured.bytes);
  if (newline === "drop") measured.seen[0x0a] = 0;
  const seen = [...measured.seen.keys()].filter((value) => measured.seen[value] === 1);
  if (seen.length === 0) throw new StoreError(source.name, "it holds nothing but newlines, which are to be left out");
  const tokenizer = new ByteTokenizer(alphabet === "seen" ? seen : undefined);
  return writeStore({ source, measured, tokenizer, isText: false, newline }, options);
}
