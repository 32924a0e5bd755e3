// Layer: datasets. The character data sets of the paper (arXiv 2507.06204, appendix), where they are and how they are split; sizes and
// published checksums are checked, so that a part never carries the name of the whole.
import { text8Tokenizer } from "@diffmamba/tokenizer";
import type { Checksums } from "./checksum.js";
import type { Download } from "./download.js";
import { type PrepareBytesOptions, type PrepareOptions, prepareBytes, prepareText } from "./prepare.js";
import type { TokenStore } from "./store.js";
import { StoreError } from "./token-source.js";

/** A data set that is known by its name. */
export interface DataSet {
  readonly name: string;
  /** What it is, in a line. */
  readonly about: string;
  /** Bytes of the whole, unpacked. */
  readonly bytes: number;
  readonly validBytes: number;
  readonly testBytes: number;
  /** `characters`: text8's 27 symbols, each split stripped. `bytes`: any byte. */
  readonly symbols: "characters" | "bytes";
  /** Published of the whole, unpacked. */
  readonly checksums: Checksums;
  /** Its public address; absent where it has none. */
  readonly download?: Download;
}

const million = 1_000_000;

/** The data sets that {@link prepareDataSet} knows. */
export const dataSets: Readonly<Record<string, DataSet>> = {
  text8: {
    name: "text8",
    about: "the first 100,000,000 characters of English Wikipedia (2006), a to z and single spaces; split 90M/5M/5M",
    bytes: 100 * million,
    validBytes: 5 * million,
    testBytes: 5 * million,
    symbols: "characters",
    checksums: { md5: "3bea1919949baf155f99411df5fada7e" },
    download: { url: "https://mattmahoney.net/dc/text8.zip" },
  },
  enwik8: {
    name: "enwik8",
    about: "the first 100,000,000 bytes of a dump of English Wikipedia (2006); split 90M/5M/5M",
    bytes: 100 * million,
    validBytes: 5 * million,
    testBytes: 5 * million,
    symbols: "bytes",
    // https://mattmahoney.net/dc/textdata.html
    checksums: { md5: "a1fa5ffddb56f4953e226637dabbb36a", sha1: "57b8363b814821dc9d47aa4d41f58733519076b2" },
    download: { url: "https://mattmahoney.net/dc/enwik8.zip" },
  },
  wiki8: {
    name: "wiki8",
    about: "50,000,000 characters of English Wikipedia (2015) in text8's normalisation; not text8; split 45M/2.5M/2.5M",
    bytes: 50 * million,
    validBytes: 2.5 * million,
    testBytes: 2.5 * million,
    symbols: "characters",
    checksums: {},
  },
};

export interface DataSetOptions extends Omit<PrepareOptions, "name" | "splits" | "strip"> {
  /**
   * For enwik8. `drop` is what the reference's loader does (every newline byte left out, 204 symbols) and what its published
   * figures are of; `keep` is the whole data. `drop` unless told.
   */
  readonly newline?: PrepareBytesOptions["newline"];
}

/**
 * Prepares text8, enwik8 or wiki8 from a local file (`.gz`, `.xz` and `.zip` are unpacked). The byte vocabulary of enwik8 is that of the
 * bytes which occur in it.
 * @throws StoreError for a name that is unknown, or a file that is not of the data set's size or checksum: a figure on a part must not be reported
 * under the name of the whole
 */
export async function prepareDataSet(name: string, options: DataSetOptions): Promise<TokenStore> {
  const set = Object.hasOwn(dataSets, name) ? dataSets[name] : undefined;
  if (!set) throw new StoreError(name, `no data set has this name; there are ${Object.keys(dataSets).join(", ")}`);
  if (options.newline && set.symbols !== "bytes") {
    throw new StoreError(name, `"newline" is a choice for data sets of bytes; ${name} has no newlines`);
  }
  const expected = { name, bytes: set.bytes, checksums: set.checksums };
  const { newline = "drop", ...rest } = options;
  const splits = { valid: { bytes: set.validBytes }, test: { bytes: set.testBytes } };
  return set.symbols === "characters"
    ? prepareText({ ...rest, name, splits, strip: true, tokenizer: text8Tokenizer() }, expected)
    : prepareBytes({ ...rest, name, splits, alphabet: "seen", newline }, expected);
}
