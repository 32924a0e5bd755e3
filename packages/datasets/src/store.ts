// Layer: datasets. The token store: a folder with `store.json`, a tokenizer and files of little-endian ids, read in windows.
// Knows files only through the FileSystem interface; does not know how a store is made (prepare.ts).
import { type FileSystem, joinPath, readJson } from "@diffmamba/files";
import { loadTokenizer, type Tokenizer } from "@diffmamba/tokenizer";
import { DocumentIndex } from "./documents.js";
import {
  checkManifest,
  type ShardManifest,
  type SplitManifest,
  type StoreManifest,
  shardsOf,
  storeFile,
} from "./manifest.js";
import {
  checkTokenRange,
  checkTokens,
  StoreError,
  type TokenSource,
  type TokenType,
  tokenBytes,
  unpackTokens,
} from "./token-source.js";
import { WindowCache } from "./window-cache.js";

export interface StoreOptions {
  /** Bytes of file content kept in memory for each split; 16 MiB unless told. */
  readonly cacheBytes?: number;
  /** Tokens of one window, the unit that is read and kept; 16,384 unless told. */
  readonly windowTokens?: number;
}

type Ids = Uint8Array | Uint16Array | Uint32Array;

/** A shard with the place of its first token in the split. */
interface PlacedShard extends ShardManifest {
  readonly first: number;
}

/** One split of a store. Reads whole windows and keeps the most recently used ones. */
export class TokenSplit implements TokenSource {
  /** Path of the split's file, or of its first one. */
  readonly name: string;
  readonly length: number;
  readonly bytes: number;
  /** Where documents begin; absent where the split is one text. */
  readonly documents?: DocumentIndex;
  readonly #shards: readonly PlacedShard[];
  readonly #windowTokens: number;
  readonly #windows: WindowCache<Ids>;

  constructor(
    readonly files: FileSystem,
    readonly folder: string,
    split: SplitManifest,
    readonly dtype: TokenType,
    readonly vocabSize: number,
    options: StoreOptions = {},
  ) {
    const { cacheBytes = 16 << 20, windowTokens = 1 << 14 } = options;
    let first = 0;
    this.#shards = shardsOf(split).map((shard) => {
      const placed = { ...shard, first };
      first += shard.tokens;
      return placed;
    });
    this.name = joinPath(folder, this.#shards[0]?.file ?? "");
    this.length = split.tokens;
    this.bytes = split.bytes;
    this.#windowTokens = windowTokens;
    this.#windows = new WindowCache(Math.floor(cacheBytes / (windowTokens * tokenBytes[dtype])));
    if (split.documents !== undefined) {
      this.documents = new DocumentIndex(
        files,
        joinPath(folder, split.documents.file),
        split.documents.count,
        split.tokens,
      );
    }
  }

  async read(start: number, count: number): Promise<Int32Array> {
    checkTokenRange(this, start, count);
    const ids = new Int32Array(count);
    const size = this.#windowTokens;
    for (let at = start; at < start + count; ) {
      const shard = this.#shardAt(at);
      const inShard = at - shard.first;
      const index = Math.floor(inShard / size);
      const window = await this.#windows.get(`${shard.file}:${index}`, () => this.#load(shard, index));
      const from = inShard - index * size;
      const part = window.subarray(from, Math.min(window.length, from + start + count - at));
      ids.set(part, at - start);
      at += part.length;
    }
    return ids;
  }

  /** The last shard that begins at or before a token, by halving. */
  #shardAt(token: number): PlacedShard {
    let low = 0;
    let high = this.#shards.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#shards[middle] as PlacedShard).first <= token) low = middle;
      else high = middle - 1;
    }
    return this.#shards[low] as PlacedShard;
  }

  async #load(shard: PlacedShard, index: number): Promise<Ids> {
    const width = tokenBytes[this.dtype];
    const first = index * this.#windowTokens;
    const count = Math.min(this.#windowTokens, shard.tokens - first);
    const path = joinPath(this.folder, shard.file);
    const ids = unpackTokens(await this.files.readRange(path, first * width, count * width), this.dtype);
    checkTokens(path, ids, first, this.vocabSize);
    return ids;
  }
}

/** @throws StoreError where a file is missing or not of the size that the manifest says */
async function checkSize(
  files: FileSystem,
  path: string,
  expected: number,
  what: string,
  split: string,
): Promise<void> {
  const size = (await files.stat(path))?.size;
  if (size === undefined)
    throw new StoreError(path, `the file of split "${split}" is missing; prepare the store again`);
  if (size === expected) return;
  throw new StoreError(path, `it holds ${size} bytes, but ${what} are ${expected}; prepare the store again`);
}

/** A prepared data set on disk (or in any FileSystem). */
export class TokenStore {
  private constructor(
    readonly files: FileSystem,
    readonly path: string,
    readonly manifest: StoreManifest,
    readonly options: StoreOptions,
  ) {}

  /**
   * Opens a store. Its files are checked for their size now and for their values as they are read.
   * @throws FileError where the folder or a file is missing; StoreError where one is not what the manifest says
   */
  static async open(files: FileSystem, path: string, options: StoreOptions = {}): Promise<TokenStore> {
    const manifestPath = joinPath(path, storeFile);
    const manifest = checkManifest(manifestPath, await readJson(files, manifestPath));
    for (const [name, split] of Object.entries(manifest.splits)) {
      for (const { file, tokens } of shardsOf(split)) {
        const what = `${tokens} tokens of ${manifest.dtype}`;
        await checkSize(files, joinPath(path, file), tokens * tokenBytes[manifest.dtype], what, name);
      }
      const { documents } = split;
      if (documents !== undefined) {
        const { file, count } = documents;
        await checkSize(files, joinPath(path, file), 8 * count, `the places of ${count} documents`, name);
      }
    }
    return new TokenStore(files, path, manifest, options);
  }

  get name(): string {
    return this.manifest.name;
  }

  get vocabSize(): number {
    return this.manifest.vocabSize;
  }

  /** Names of the splits: "train", and "valid" and "test" where there are any. */
  get splitNames(): string[] {
    return Object.keys(this.manifest.splits);
  }

  /** @throws StoreError naming the splits that there are */
  split(name: string): TokenSplit {
    const split = Object.hasOwn(this.manifest.splits, name) ? this.manifest.splits[name] : undefined;
    if (!split) throw new StoreError(this.path, `there is no split "${name}"; it has ${this.splitNames.join(", ")}`);
    return new TokenSplit(this.files, this.path, split, this.manifest.dtype, this.manifest.vocabSize, this.options);
  }

  /** The tokenizer that the store was made with. */
  async loadTokenizer(): Promise<Tokenizer> {
    const tokenizer = await loadTokenizer(this.files, this.path);
    if (tokenizer.vocabSize === this.vocabSize) return tokenizer;
    throw new StoreError(
      this.path,
      `its tokenizer has ${tokenizer.vocabSize} tokens, but the store was made with ${this.vocabSize}; prepare it again`,
    );
  }
}
