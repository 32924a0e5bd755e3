// Layer: datasets. The token store: a folder with `store.json`, a tokenizer and one file of little-endian ids a split, read in windows.
// Knows files only through the FileSystem interface; does not know how a store is made (prepare.ts).
import { type FileSystem, joinPath, readJson } from "@diffmamba/files";
import { loadTokenizer, type Tokenizer } from "@diffmamba/tokenizer";
import {
  checkTokenRange,
  checkTokens,
  StoreError,
  type TokenSource,
  type TokenType,
  tokenBytes,
  unpackTokens,
} from "./token-source.js";

/** The file that makes a folder a token store. */
export const storeFile = "store.json";
export const storeFormat = "diffmamba-token-store";

export interface SplitManifest {
  /** Name of the file in the folder. */
  readonly file: string;
  readonly tokens: number;
  /** Bytes of the source that these tokens stand for, after what preparation left out. */
  readonly bytes: number;
}

/** What `store.json` holds. */
export interface StoreManifest {
  readonly format: typeof storeFormat;
  readonly version: 1;
  /** The data set's name: "text8" is only ever the whole of text8. */
  readonly name: string;
  readonly dtype: TokenType;
  readonly vocabSize: number;
  /** The source before splitting and after decompression. */
  readonly source: { readonly name: string; readonly bytes: number; readonly sha256: string };
  /** Fingerprint of the tokenizer beside it: SHA-256 of its JSON. */
  readonly tokenizer: { readonly kind: string; readonly sha256: string };
  /** What preparation changed: white space at the ends of each split removed, newline bytes left out. */
  readonly options: { readonly strip: boolean; readonly newline: "keep" | "drop" };
  readonly splits: Readonly<Record<string, SplitManifest>>;
}

type JsonObject = { readonly [key: string]: unknown };

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** @throws StoreError naming the file and the field */
function checkManifest(path: string, json: unknown): StoreManifest {
  const wrong = (field: string, value: unknown, expected: string): never => {
    throw new StoreError(path, `its "${field}" is ${JSON.stringify(value)}; expected ${expected}`);
  };
  if (!isObject(json)) throw new StoreError(path, "it does not hold a JSON object");
  if (json.format !== storeFormat) wrong("format", json.format, `"${storeFormat}"`);
  if (json.version !== 1) wrong("version", json.version, "1, which this package reads");
  if (typeof json.name !== "string") wrong("name", json.name, "a string");
  if (typeof json.dtype !== "string" || !(json.dtype in tokenBytes)) wrong("dtype", json.dtype, '"u8", "u16" or "u32"');
  if (!isCount(json.vocabSize) || json.vocabSize === 0) wrong("vocabSize", json.vocabSize, "a whole number above 0");
  if (!isObject(json.splits) || Object.keys(json.splits).length === 0)
    wrong("splits", json.splits, "an object of splits");
  for (const [name, split] of Object.entries(json.splits as JsonObject)) {
    const sound = isObject(split) && typeof split.file === "string" && isCount(split.tokens) && isCount(split.bytes);
    if (!sound || /[/\\]/.test(split.file as string)) {
      wrong(`splits.${name}`, split, '{ "file": a name in the folder, "tokens": a count, "bytes": a count }');
    }
  }
  return json as unknown as StoreManifest;
}

export interface StoreOptions {
  /** Bytes of file content kept in memory for each split; 16 MiB unless told. */
  readonly cacheBytes?: number;
  /** Tokens of one window, the unit that is read and kept; 16,384 unless told. */
  readonly windowTokens?: number;
}

/** One split of a store. Reads whole windows and keeps the most recently used ones. */
export class TokenSplit implements TokenSource {
  /** Path of the split's file. */
  readonly name: string;
  readonly length: number;
  readonly bytes: number;
  readonly #windows = new Map<
    number,
    Promise<ArrayLike<number> & { subarray(a: number, b: number): ArrayLike<number> }>
  >();
  readonly #windowTokens: number;
  readonly #maxWindows: number;

  constructor(
    readonly files: FileSystem,
    folder: string,
    split: SplitManifest,
    readonly dtype: TokenType,
    readonly vocabSize: number,
    options: StoreOptions = {},
  ) {
    const { cacheBytes = 16 << 20, windowTokens = 1 << 14 } = options;
    this.name = joinPath(folder, split.file);
    this.length = split.tokens;
    this.bytes = split.bytes;
    this.#windowTokens = windowTokens;
    this.#maxWindows = Math.max(1, Math.floor(cacheBytes / (windowTokens * tokenBytes[dtype])));
  }

  async read(start: number, count: number): Promise<Int32Array> {
    checkTokenRange(this, start, count);
    const ids = new Int32Array(count);
    const size = this.#windowTokens;
    for (let at = start; at < start + count; ) {
      const index = Math.floor(at / size);
      const window = await this.#window(index);
      const from = at - index * size;
      const part = window.subarray(from, Math.min(window.length, from + start + count - at));
      ids.set(part, at - start);
      at += part.length;
    }
    return ids;
  }

  #window(index: number) {
    let window = this.#windows.get(index);
    if (window) this.#windows.delete(index);
    else {
      window = this.#load(index);
      window.catch(() => this.#windows.delete(index)); // a failed read is tried again, not remembered
      for (const oldest of this.#windows.keys()) {
        if (this.#windows.size < this.#maxWindows) break;
        this.#windows.delete(oldest);
      }
    }
    this.#windows.set(index, window);
    return window;
  }

  async #load(index: number) {
    const width = tokenBytes[this.dtype];
    const first = index * this.#windowTokens;
    const count = Math.min(this.#windowTokens, this.length - first);
    const ids = unpackTokens(await this.files.readRange(this.name, first * width, count * width), this.dtype);
    checkTokens(this.name, ids, first, this.vocabSize);
    return ids;
  }
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
    for (const [name, { file, tokens }] of Object.entries(manifest.splits)) {
      const filePath = joinPath(path, file);
      const size = (await files.stat(filePath))?.size;
      const expected = tokens * tokenBytes[manifest.dtype];
      if (size === undefined)
        throw new StoreError(filePath, `the file of split "${name}" is missing; prepare the store again`);
      if (size !== expected) {
        throw new StoreError(
          filePath,
          `it holds ${size} bytes, but ${tokens} tokens of ${manifest.dtype} are ${expected}; prepare the store again`,
        );
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
