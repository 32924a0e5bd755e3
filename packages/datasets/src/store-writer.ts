// Layer: datasets. Writes the files of a store: ids into shards, the places of documents beside them. Its state can be written down, and
// taken up again after whatever came behind has been cut off. Knows no text and no tokenizer.
import { type FileSystem, type FileWriter, joinPath } from "@diffmamba/files";
import { packStarts } from "./documents.js";
import type { ShardManifest, SplitManifest } from "./manifest.js";
import { packTokens, StoreError, type TokenType, tokenBytes } from "./token-source.js";

export interface StoreWriterOptions {
  readonly dtype: TokenType;
  /** Tokens of a shard; a split of more has several. */
  readonly shardTokens: number;
  /** Whether the places where documents begin are kept. */
  readonly documents: boolean;
  /** Put behind every document. */
  readonly eos?: number;
}

interface SplitState {
  shards: { file: string; tokens: number }[];
  tokens: number;
  bytes: number;
  documents: number;
  /** Whether the next token begins a document. */
  begins: boolean;
}

/** What has been written, as JSON. */
export type WriterState = Readonly<Record<string, SplitState>>;

/** Bytes that are collected before they are written. */
const writeBytes = 1 << 20;

/** Appends to a file in large pieces. */
class Appender {
  #writer: FileWriter | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;

  constructor(
    readonly files: FileSystem,
    readonly path: string,
    /** Whether something is there already that stays. */
    private appends: boolean,
  ) {}

  async write(bytes: Uint8Array): Promise<void> {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes >= writeBytes) await this.#flush();
  }

  async #flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    this.#writer ??= await this.files.writer(this.path, { append: this.appends });
    this.appends = true;
    for (const part of this.#waiting) await this.#writer.write(part);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  /** Brings everything to the disk; what is written afterwards is appended. */
  async close(): Promise<void> {
    await this.#flush();
    const writer = this.#writer;
    this.#writer = undefined;
    await writer?.close();
  }

  async abort(): Promise<void> {
    await this.#writer?.abort();
    this.#writer = undefined;
  }
}

class SplitFiles {
  #shard: Appender | undefined;
  #documents: Appender | undefined;

  constructor(
    readonly files: FileSystem,
    readonly folder: string,
    readonly name: string,
    readonly options: StoreWriterOptions,
    readonly state: SplitState,
  ) {}

  get documentsFile(): string {
    return `${this.name}.docs`;
  }

  #nextShard(): { file: string; tokens: number } {
    const { shards } = this.state;
    const number = shards.length === 0 ? "" : `.${shards.length}`;
    const shard = { file: `${this.name}${number}.${this.options.dtype}`, tokens: 0 };
    shards.push(shard);
    return shard;
  }

  async #writeIds(ids: Int32Array): Promise<void> {
    const { dtype, shardTokens } = this.options;
    for (let at = 0; at < ids.length; ) {
      let shard = this.state.shards.at(-1);
      if (shard === undefined || shard.tokens >= shardTokens) {
        await this.#shard?.close();
        this.#shard = undefined;
        shard = this.#nextShard();
      }
      this.#shard ??= new Appender(this.files, joinPath(this.folder, shard.file), shard.tokens > 0);
      const part = ids.subarray(at, at + Math.min(ids.length - at, shardTokens - shard.tokens));
      await this.#shard.write(packTokens(part, dtype));
      shard.tokens += part.length;
      this.state.tokens += part.length;
      at += part.length;
    }
  }

  /** Ids of parts of documents, each with its length and whether its document ends behind it. */
  async write(ids: Int32Array, lengths: readonly number[], ends: readonly boolean[]): Promise<void> {
    const { eos, documents } = this.options;
    if (!documents) return this.#writeIds(ids);
    const { state } = this;
    const starts: number[] = [];
    const eosTokens = eos === undefined ? 0 : ends.filter(Boolean).length;
    const all = eosTokens === 0 ? ids : new Int32Array(ids.length + eosTokens);
    let [from, to] = [0, 0];
    for (const [i, length] of lengths.entries()) {
      if (state.begins && length > 0) {
        starts.push(state.tokens + to);
        state.documents++;
        state.begins = false;
      }
      if (all !== ids) all.set(ids.subarray(from, from + length), to);
      from += length;
      to += length;
      if (!ends[i]) continue;
      if (eos !== undefined) {
        // A document without a token is one that is not there.
        if (!state.begins) all[to++] = eos;
      }
      state.begins = true;
    }
    if (starts.length > 0) {
      const had = state.documents - starts.length;
      this.#documents ??= new Appender(this.files, joinPath(this.folder, this.documentsFile), had > 0);
      await this.#documents.write(packStarts(starts));
    }
    await this.#writeIds(all.subarray(0, to));
  }

  async close(): Promise<void> {
    await this.#shard?.close();
    await this.#documents?.close();
  }

  async abort(): Promise<void> {
    await this.#shard?.abort();
    await this.#documents?.abort();
  }

  manifest(): SplitManifest {
    const { shards, tokens, bytes, documents } = this.state;
    const [only] = shards;
    if (only !== undefined && shards.length === 1 && !this.options.documents) return { file: only.file, tokens, bytes };
    const index: ShardManifest[] = shards.map(({ file, tokens }) => ({ file, tokens }));
    const places = this.options.documents && { documents: { file: this.documentsFile, count: documents } };
    return { shards: index, tokens, bytes, ...places };
  }
}

export class StoreWriter {
  readonly #splits = new Map<string, SplitFiles>();

  constructor(
    readonly files: FileSystem,
    readonly folder: string,
    readonly options: StoreWriterOptions,
  ) {}

  /**
   * Takes up the writing of a state: what the files hold behind it is cut off.
   * @throws StoreError or FileError where a file holds less than the state says
   */
  static async resume(
    files: FileSystem,
    folder: string,
    options: StoreWriterOptions,
    state: WriterState,
  ): Promise<StoreWriter> {
    const writer = new StoreWriter(files, folder, options);
    const cut = async (name: string, size: number) => {
      const path = joinPath(folder, name);
      if ((await files.stat(path)) === undefined) throw new StoreError(path, "it is missing");
      await files.truncate(path, size);
    };
    for (const [name, saved] of Object.entries(state)) {
      const split = writer.#open(name, structuredClone(saved));
      for (const { file, tokens } of saved.shards) await cut(file, tokens * tokenBytes[options.dtype]);
      if (saved.documents > 0) await cut(split.documentsFile, 8 * saved.documents);
    }
    return writer;
  }

  #open(name: string, state?: SplitState): SplitFiles {
    const fresh: SplitState = { shards: [], tokens: 0, bytes: 0, documents: 0, begins: true };
    const split = new SplitFiles(this.files, this.folder, name, this.options, state ?? fresh);
    this.#splits.set(name, split);
    return split;
  }

  /**
   * Appends to a split.
   * @param bytes of the source that these ids stand for
   */
  async write(
    name: string,
    ids: Int32Array,
    bytes: number,
    lengths: readonly number[] = [ids.length],
    ends: readonly boolean[] = [],
  ): Promise<void> {
    const split = this.#splits.get(name) ?? this.#open(name);
    split.state.bytes += bytes;
    await split.write(ids, lengths, ends);
  }

  /** Brings everything to the disk. */
  async checkpoint(): Promise<WriterState> {
    for (const split of this.#splits.values()) await split.close();
    return structuredClone(Object.fromEntries([...this.#splits].map(([name, { state }]) => [name, state])));
  }

  /** The splits with tokens, in the order in which they were begun. */
  async finish(): Promise<Record<string, SplitManifest>> {
    await this.checkpoint();
    return Object.fromEntries([...this.#splits].map(([name, split]) => [name, split.manifest()]));
  }

  async abort(): Promise<void> {
    for (const split of this.#splits.values()) await split.abort();
  }
}
