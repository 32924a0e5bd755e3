// Layer: datasets. The way from pieces of text or bytes to a finished store: cut into chunks, encoded (perhaps several at once), written in
// order, noted down on the way, and put in its place only when it is whole. Knows no source and no split rule (prepare.ts).
import { type FileSystem, joinPath, parentPath, writeFileAtomic } from "@diffmamba/files";
import {
  ByteTokenizer,
  type Encoded,
  saveTokenizer,
  serialEncoder,
  type TextsEncoder,
  type Tokenizer,
  UnknownSymbolError,
} from "@diffmamba/tokenizer";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { type ByteChunk, type Chunk, chunksOf, type Piece, type TextChunk } from "./chunks.js";
import { type Journal, journalFile, readJournal, writeJournal } from "./journal.js";
import { type SplitManifest, type StoreManifest, storeFile, storeFormat } from "./manifest.js";
import { TokenStore } from "./store.js";
import { StoreWriter, type StoreWriterOptions } from "./store-writer.js";
import { StoreError, tokenTypeFor } from "./token-source.js";

/** What every preparation is told. */
export interface WriteOptions {
  readonly files: FileSystem;
  /** The store's folder. Its parents are made. */
  readonly out: string;
  /** Replaces a store that is there. */
  readonly overwrite?: boolean;
  /** Tokens of a file; a split of more is several. 2^27 unless told. */
  readonly shardTokens?: number;
  /**
   * What encodes: `(tokenizer) => textsEncoder(tokenizer, { threads })` of `@diffmamba/tokenizer/node` for several threads. This thread
   * unless told. The store is the same.
   */
  readonly encoder?: (tokenizer: Tokenizer) => TextsEncoder & Partial<AsyncDisposable>;
  /**
   * Keeps what has been written when `signal` stops the preparation, it fails or the process dies, in a folder beside (`out` with
   * `.tmp`), and goes on from it the next time. Without it nothing is left behind.
   */
  readonly resume?: boolean;
  readonly signal?: AbortSignal;
}

/** What is to be written. */
export interface WritePlan {
  readonly name: string;
  /** Of the source, for messages. */
  readonly sourceName: string;
  readonly tokenizer: Tokenizer;
  /** The source from its start. */
  pieces(): AsyncIterable<Piece>;
  /** Known beforehand, or found out on the way: then documents are what is hashed. */
  readonly source: StoreManifest["source"] | undefined;
  readonly options: StoreManifest["options"];
  /** Keeps the places of documents. */
  readonly documents: boolean;
  /** Splits that the store must have, in their order; those of `optional` are left out where they have no token. */
  readonly splits: readonly string[];
  readonly optional?: readonly string[];
  /** Everything else that decides what is written. */
  readonly settings?: unknown;
  /** Called when all has been read, before the store is put in its place; throws where the source was not what it should be. */
  check?(found: { readonly bytes: number; readonly splits: Readonly<Record<string, SplitManifest>> }): void;
}

export const everySplit = "a store holds at least one token in every split";

const defaultShardTokens = 1 << 27;

/** Bytes of the source between two notes of how far it has come. */
const checkpointBytes = 32 << 20;

/** The source was not what an interrupted preparation had read. */
class Changed extends Error {}

const isText = (chunk: Chunk): chunk is TextChunk => "texts" in chunk;

/** Reads on from where ids are known, in order, with several chunks on their way. */
class Run {
  readonly #hash = sha256.create();
  readonly #separator = Uint8Array.of(0);
  readonly #utf8 = new TextEncoder();
  bytes = 0;
  chunks = 0;
  #sinceNote = 0;

  constructor(
    readonly plan: WritePlan,
    readonly options: WriteOptions,
    readonly folder: string,
    readonly fingerprint: string,
    readonly writer: StoreWriter,
    readonly encoder: TextsEncoder,
    readonly journal: Journal | undefined,
  ) {}

  get #hashes(): boolean {
    return this.plan.source === undefined;
  }

  sha256(): string {
    return bytesToHex(this.#hash.clone().digest());
  }

  async run(): Promise<void> {
    const { plan, options, encoder } = this;
    const skip = this.journal?.chunks ?? 0;
    const waiting: { readonly chunk: Chunk; readonly encoded: Promise<Encoded> | undefined }[] = [];
    const settleOne = async () => {
      const first = waiting.shift();
      if (first !== undefined) await this.#write(first.chunk, await first.encoded);
    };
    let seen = 0;
    try {
      for await (const chunk of chunksOf(plan.pieces(), plan.tokenizer, plan.sourceName)) {
        options.signal?.throwIfAborted();
        if (seen++ < skip) {
          this.#count(chunk);
          if (seen === skip && this.#hashes && this.sha256() !== this.journal?.sha256) throw new Changed();
          continue;
        }
        const encoded = isText(chunk) ? encoder.encode(chunk.texts) : undefined;
        encoded?.catch(() => undefined); // looked at in its turn
        waiting.push({ chunk, encoded });
        if (waiting.length > encoder.size) await settleOne();
      }
      if (seen < skip) throw new Changed();
      while (waiting.length > 0) await settleOne();
    } catch (error) {
      await Promise.allSettled(waiting.map(({ encoded }) => encoded));
      if (options.resume && options.signal?.aborted && !(error instanceof Changed)) await this.#note();
      throw error;
    }
  }

  #count(chunk: Chunk): void {
    this.chunks++;
    this.bytes += isText(chunk) ? chunk.bytes : chunk.raw.length;
    if (!this.#hashes || !isText(chunk)) return;
    for (const [i, text] of chunk.texts.entries()) {
      this.#hash.update(this.#utf8.encode(text));
      if (chunk.ends[i]) this.#hash.update(this.#separator);
    }
  }

  async #write(chunk: Chunk, encoded: Encoded | undefined): Promise<void> {
    const name = `${this.plan.sourceName} (split "${chunk.split}")`;
    if (!isText(chunk)) {
      await this.writer.write(chunk.split, encodeBytes(this.plan.tokenizer, chunk, name), chunk.raw.length);
    } else if (encoded !== undefined) {
      const { ids, lengths } = known(chunk, encoded, name);
      await this.writer.write(chunk.split, ids, chunk.bytes, lengths, chunk.ends);
    }
    const before = this.bytes;
    this.#count(chunk);
    this.#sinceNote += this.bytes - before;
    if (this.options.resume && this.#sinceNote >= checkpointBytes) await this.#note();
  }

  async #note(): Promise<void> {
    this.#sinceNote = 0;
    const written = await this.writer.checkpoint();
    const { fingerprint, chunks } = this;
    const hash = this.#hashes ? this.sha256() : null;
    await writeJournal(this.options.files, this.folder, { version: 1, fingerprint, chunks, sha256: hash, written });
  }
}

function encodeBytes(tokenizer: Tokenizer, { raw, position }: ByteChunk, name: string): Int32Array {
  if (!(tokenizer instanceof ByteTokenizer)) {
    throw new StoreError(name, `bytes want a byte tokenizer, not one of ${tokenizer.kind}`);
  }
  try {
    return tokenizer.encodeBytes(raw);
  } catch (error) {
    throw error instanceof UnknownSymbolError ? error.within(name, position) : error;
  }
}

/** @throws UnknownSymbolError with its place in the split */
function known({ texts, position }: TextChunk, encoded: Encoded, name: string) {
  if ("ids" in encoded) return encoded;
  const { symbol, position: inText, remedy } = encoded.unknown;
  const before = texts.slice(0, encoded.text).reduce((sum, text) => sum + text.length, position);
  throw new UnknownSymbolError(symbol, before + inText, remedy, name);
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

const fingerprintOf = (value: unknown): string => bytesToHex(sha256(new TextEncoder().encode(JSON.stringify(value))));

/** @throws StoreError where something is in the store's place and may not be replaced */
export async function checkPlace({ files, out, overwrite }: WriteOptions): Promise<void> {
  if (overwrite || (await files.stat(out)) === undefined) return;
  throw new StoreError(out, "something is already there; choose another folder, or say that it may be overwritten");
}

async function openWriter(
  { files, resume }: WriteOptions,
  folder: string,
  settings: StoreWriterOptions,
  fingerprint: string,
): Promise<{ writer: StoreWriter; journal?: Journal }> {
  const journal = resume ? await readJournal(files, folder, fingerprint) : undefined;
  if (journal !== undefined) {
    try {
      return { writer: await StoreWriter.resume(files, folder, settings, journal.written), journal };
    } catch {
      // A file is gone or shorter than noted: what is left cannot be used.
    }
  }
  await files.remove(folder);
  await files.makeDirectory(folder);
  return { writer: new StoreWriter(files, folder, settings) };
}

async function attempt(plan: WritePlan, options: WriteOptions, temporary: string): Promise<void> {
  const { files, out, overwrite = false, shardTokens = defaultShardTokens } = options;
  if (!Number.isSafeInteger(shardTokens) || shardTokens < 1) {
    throw new RangeError(`"shardTokens" wants a whole number above 0, got ${shardTokens}`);
  }
  const { tokenizer, documents } = plan;
  const dtype = tokenTypeFor(tokenizer.vocabSize);
  const tokenizerHash = fingerprintOf(tokenizer);
  const { eos } = plan.options;
  const settings = { dtype, shardTokens, documents, ...(typeof eos === "number" && { eos }) };
  const { name, source, sourceName, options: changes, settings: others } = plan;
  const fingerprint = fingerprintOf([name, sourceName, source, changes, others, settings, tokenizerHash]);
  const { writer, journal } = await openWriter(options, temporary, settings, fingerprint);
  try {
    const encoder = options.encoder?.(tokenizer) ?? serialEncoder(tokenizer);
    const run = new Run(plan, options, temporary, fingerprint, writer, encoder, journal);
    try {
      await run.run();
    } finally {
      await (encoder as Partial<AsyncDisposable>)[Symbol.asyncDispose]?.();
    }
    const found = await writer.finish();
    const present = plan.splits.filter((split) => {
      if ((found[split]?.tokens ?? 0) > 0) return true;
      if (plan.optional?.includes(split)) return false;
      throw new StoreError(sourceName, `split "${split}" has no tokens; ${everySplit}`);
    });
    const splits = Object.fromEntries(present.map((split) => [split, found[split] as SplitManifest]));
    plan.check?.({ bytes: run.bytes, splits });
    await saveTokenizer(files, temporary, tokenizer);
    const manifest: StoreManifest = {
      format: storeFormat,
      version: Object.values(splits).every(({ file }) => file !== undefined) ? 1 : 2,
      name,
      dtype,
      vocabSize: tokenizer.vocabSize,
      source: source ?? { name: sourceName, bytes: run.bytes, sha256: run.sha256() },
      tokenizer: { kind: tokenizer.kind, sha256: tokenizerHash },
      options: changes,
      splits,
    };
    if (!documents && manifest.version === 2) Object.assign(manifest, { splits: withShards(splits) });
    await files.remove(joinPath(temporary, journalFile));
    await writeFileAtomic(files, joinPath(temporary, storeFile), `${JSON.stringify(manifest, null, 2)}\n`);
    await publish(files, temporary, out, overwrite);
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** All splits in version 2's form. */
function withShards(splits: Readonly<Record<string, SplitManifest>>): Record<string, SplitManifest> {
  return Object.fromEntries(
    Object.entries(splits).map(([name, { file, tokens, ...rest }]) => [
      name,
      file === undefined ? { tokens, ...rest } : { shards: [{ file, tokens }], tokens, ...rest },
    ]),
  );
}

/**
 * Writes a store, or goes on with one.
 * @throws whatever the source, the tokenizer or a file throws; what is left behind then is nothing, or with `resume` a folder beside the
 * store's place that the same call goes on from
 */
export async function writeStore(plan: WritePlan, options: WriteOptions): Promise<TokenStore> {
  const { files, out, resume = false } = options;
  const temporary = `${out}.tmp`;
  try {
    try {
      await attempt(plan, options, temporary);
    } catch (error) {
      if (!(error instanceof Changed)) throw error;
      await files.remove(temporary);
      await attempt(plan, options, temporary);
    }
  } catch (error) {
    const noted = resume && (await files.stat(joinPath(temporary, journalFile)).catch(() => undefined)) !== undefined;
    if (!noted) await files.remove(temporary).catch(() => undefined);
    throw error;
  }
  return TokenStore.open(files, out);
}
