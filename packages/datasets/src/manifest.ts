// Layer: datasets. What `store.json` says of a token store, and its check. Version 1 has one file a split; version 2 has shards, and may
// know where documents begin. Knows no file.
import { StoreError, type TokenType, tokenBytes } from "./token-source.js";

/** The file that makes a folder a token store. */
export const storeFile = "store.json";
export const storeFormat = "diffmamba-token-store";

/** A file of little-endian ids. The shards of a split, behind one another, are its tokens. */
export interface ShardManifest {
  /** Name of the file in the folder. */
  readonly file: string;
  readonly tokens: number;
}

export interface SplitManifest {
  /** Version 1: name of the one file in the folder. */
  readonly file?: string;
  /** Version 2: the index of its files. */
  readonly shards?: readonly ShardManifest[];
  readonly tokens: number;
  /** Bytes of the source that these tokens stand for, after what preparation left out. */
  readonly bytes: number;
  /** Where documents begin: a file of little-endian 64-bit positions of their first tokens. Absent where there is one document. */
  readonly documents?: { readonly file: string; readonly count: number };
}

/** What `store.json` holds. */
export interface StoreManifest {
  readonly format: typeof storeFormat;
  readonly version: 1 | 2;
  /** The data set's name: "text8" is only ever the whole of text8. */
  readonly name: string;
  readonly dtype: TokenType;
  readonly vocabSize: number;
  /** The source before splitting and after decompression; of documents, their texts with a zero byte behind each. */
  readonly source: { readonly name: string; readonly bytes: number; readonly sha256: string };
  /** Fingerprint of the tokenizer beside it: SHA-256 of its JSON. */
  readonly tokenizer: { readonly kind: string; readonly sha256: string };
  /**
   * What preparation changed: white space at the ends of each split removed, newline bytes left out, and (version 2) the token that was
   * put behind every document, or null.
   */
  readonly options: { readonly strip: boolean; readonly newline: "keep" | "drop"; readonly eos?: number | null };
  readonly splits: Readonly<Record<string, SplitManifest>>;
}

type JsonObject = { readonly [key: string]: unknown };

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const isFileName = (value: unknown): value is string =>
  typeof value === "string" && value !== "" && !/[/\\]/.test(value);

const isShard = (value: unknown): value is ShardManifest =>
  isObject(value) && isFileName(value.file) && isCount(value.tokens);

function isSplit(value: unknown, version: number): boolean {
  if (!isObject(value) || !isCount(value.tokens) || !isCount(value.bytes)) return false;
  if (version === 1) return isFileName(value.file);
  const { shards, documents } = value;
  if (!Array.isArray(shards) || !shards.every(isShard)) return false;
  if (shards.reduce((sum, { tokens }) => sum + tokens, 0) !== value.tokens) return false;
  return documents === undefined || (isObject(documents) && isFileName(documents.file) && isCount(documents.count));
}

const splitForms = {
  1: '{ "file": a name in the folder, "tokens": a count, "bytes": a count }',
  2: '{ "shards": [{ "file": a name in the folder, "tokens": a count }], "tokens": their sum, "bytes": a count }',
} as const;

/** @throws StoreError naming the file and the field */
export function checkManifest(path: string, json: unknown): StoreManifest {
  const wrong = (field: string, value: unknown, expected: string): never => {
    throw new StoreError(path, `its "${field}" is ${JSON.stringify(value)}; expected ${expected}`);
  };
  if (!isObject(json)) throw new StoreError(path, "it does not hold a JSON object");
  if (json.format !== storeFormat) wrong("format", json.format, `"${storeFormat}"`);
  const { version } = json;
  if (version !== 1 && version !== 2) return wrong("version", version, "1 or 2, which this package reads");
  if (typeof json.name !== "string") wrong("name", json.name, "a string");
  if (typeof json.dtype !== "string" || !(json.dtype in tokenBytes)) wrong("dtype", json.dtype, '"u8", "u16" or "u32"');
  if (!isCount(json.vocabSize) || json.vocabSize === 0) wrong("vocabSize", json.vocabSize, "a whole number above 0");
  if (!isObject(json.splits) || Object.keys(json.splits).length === 0)
    wrong("splits", json.splits, "an object of splits");
  for (const [name, split] of Object.entries(json.splits as JsonObject)) {
    if (!isSplit(split, version)) wrong(`splits.${name}`, split, splitForms[version]);
  }
  return json as unknown as StoreManifest;
}

/** The files of a split, of either version. */
export function shardsOf({ file, shards, tokens }: SplitManifest): readonly ShardManifest[] {
  return shards ?? (file === undefined ? [] : [{ file, tokens }]);
}
