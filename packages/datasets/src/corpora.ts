// Layer: datasets. The corpora that are known by name and are not one file: WikiText-103, PG19, bAbI; where they are, how they are fetched,
// and what makes them whole.
import { baseName, type FileSystem, joinPath, readText } from "@diffmamba/files";
import { fileSource } from "./byte-source.js";
import { dataSets } from "./data-sets.js";
import { type Download, type DownloadOptions, download } from "./download.js";
import { type HubFile, type HubOptions, hubFiles } from "./hub.js";
import { documentSource, joinTexts, type TextSource } from "./text-source.js";
import { StoreError } from "./token-source.js";
import type { WikiTextLevel } from "./wikitext.js";

/** What is known of a corpus besides how it is prepared. */
export const corpora: Readonly<Record<string, { readonly about: string }>> = {
  "wikitext-103": {
    about: "103 million words of good and featured Wikipedia articles; word level, or raw for any tokenizer",
  },
  pg19: { about: "28,752 books of Project Gutenberg from before 1919; any tokenizer" },
  babi: { about: "20 tasks of question answering over short stories (v1.2); any tokenizer" },
};

export interface FetchOptions extends DownloadOptions {
  /** For WikiText-103. */
  readonly level?: WikiTextLevel;
  /** Another hub. */
  readonly hubUrl?: string;
  /** Another host of PG19's books. */
  readonly booksUrl?: string;
  readonly accessToken?: string;
}

/** Files that are fetched at once. */
const atOnce = 8;

/** Fetches many files, several at once; the first fault stops the others. */
async function downloadAll(
  all: readonly { readonly what: Download; readonly path: string }[],
  options: DownloadOptions,
): Promise<void> {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  let next = 0;
  let bytes = 0;
  const worker = async () => {
    while (next < all.length) {
      const { what, path } = all[next++] as (typeof all)[number];
      let had = 0;
      await download(what, path, {
        ...options,
        signal,
        onProgress: (progress) => {
          if (progress.phase === "download") {
            bytes += progress.bytes - had;
            had = progress.bytes;
          }
          options.onProgress?.({ phase: progress.phase, url: progress.url, bytes });
        },
      });
    }
  };
  const faults: unknown[] = [];
  await Promise.all(
    Array.from({ length: Math.min(atOnce, all.length) }, () =>
      worker().catch((error) => {
        faults.push(error);
        stop.abort(error);
      }),
    ),
  );
  if (faults.length > 0) throw faults[0];
}

/** Fetches the files of a data set on the hub into a folder, below which they have the repository's names. */
export async function fetchHub(
  hub: HubOptions,
  splits: readonly string[],
  folder: string,
  options: DownloadOptions,
): Promise<Readonly<Record<string, readonly string[]>>> {
  const found = await hubFiles(hub, splits);
  const place = ({ path }: HubFile) => joinPath(folder, path);
  const headers: Record<string, string> =
    hub.accessToken === undefined ? {} : { authorization: `Bearer ${hub.accessToken}` };
  const all = Object.values(found).flat();
  await downloadAll(
    all.map((what) => ({ what, path: place(what) })),
    { ...options, headers: { ...options.headers, ...headers } },
  );
  return Object.fromEntries(Object.entries(found).map(([split, list]) => [split, list.map(place)]));
}

const pg19Lists = "deepmind/pg19";
const pg19Books = "https://storage.googleapis.com/deepmind-gutenberg";
/** PG19's names of its splits and how many books each has (Rae et al. 2019, table 1). */
export const pg19Counts: Readonly<
  Record<"train" | "valid" | "test", { readonly folder: string; readonly books: number }>
> = {
  train: { folder: "train", books: 28_602 },
  valid: { folder: "validation", books: 50 },
  test: { folder: "test", books: 100 },
};

async function fetchPg19(folder: string, options: FetchOptions): Promise<string> {
  const { hubUrl = "https://huggingface.co", booksUrl = pg19Books } = options;
  const books: { what: Download; path: string }[] = [];
  for (const { folder: split, books: count } of Object.values(pg19Counts)) {
    const list = joinPath(folder, `${split}_files.txt`);
    await download({ url: `${hubUrl}/datasets/${pg19Lists}/resolve/main/data/${split}_files.txt` }, list, options);
    const names = (await readText(options.files, list))
      .split("\n")
      .map((name) => name.trim())
      .filter((name) => name !== "");
    if (names.length !== count || !names.every((name) => /^\w+\/\d+\.txt$/.test(name))) {
      throw new StoreError(list, `it lists ${names.length} books; PG19 has ${count} (such as ${split}/10.txt)`);
    }
    for (const name of names) books.push({ what: { url: `${booksUrl}/${name}` }, path: joinPath(folder, name) });
  }
  await downloadAll(books, options);
  return folder;
}

/**
 * Fetches a data set by its name from its public address, unless it is there.
 * @param folder where downloads are kept
 * @returns the path to prepare from: a file or a folder
 * @throws StoreError for a name without an address; DownloadError where it does not come
 */
export async function fetchDataSet(name: string, folder: string, options: FetchOptions): Promise<string> {
  const set = Object.hasOwn(dataSets, name) ? dataSets[name] : undefined;
  if (set?.download !== undefined) {
    const path = joinPath(folder, baseName(set.download.url));
    await download(set.download, path, options);
    return path;
  }
  switch (name) {
    case "wikitext-103": {
      const config = `wikitext-103-${options.level === "raw" ? "raw-" : ""}v1`;
      const { hubUrl, accessToken, fetch } = options;
      const hub = {
        repo: "Salesforce/wikitext",
        config,
        ...(hubUrl && { hubUrl }),
        ...(accessToken && { accessToken }),
        ...(fetch && { fetch }),
      };
      const place = joinPath(folder, "wikitext");
      await fetchHub(hub, ["train", "valid", "test"], place, options);
      return joinPath(place, config);
    }
    case "pg19":
      return fetchPg19(joinPath(folder, "pg19"), options);
    case "babi": {
      const url = "https://s3.amazonaws.com/text-datasets/babi_tasks_1-20_v1-2.tar.gz";
      const path = joinPath(folder, baseName(url));
      await download({ url }, path, options);
      return path;
    }
    default:
      throw new StoreError(name, "this data has no public address that is known here; name a local copy with --from");
  }
}

/**
 * The books of PG19, a document each, in the order of their numbers.
 * @param from a folder with `train`, `validation` and `test`
 * @throws StoreError where it has another number of books than PG19
 */
export async function pg19Sources(
  files: FileSystem,
  from: string,
  expected = pg19Counts,
): Promise<Readonly<Record<string, TextSource>>> {
  const sources: Record<string, TextSource> = {};
  for (const [split, { folder, books }] of Object.entries(expected)) {
    const path = joinPath(from, folder);
    const names = (await files.list(path)).map(({ name }) => name).filter((name) => /^\d+\.txt$/.test(name));
    if (names.length !== books) {
      throw new StoreError(
        path,
        `this is not all of PG19: it has ${names.length} books, and PG19's ${split} split has ${books}`,
      );
    }
    names.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
    sources[split] = joinTexts(
      path,
      names.map((name) => documentSource(fileSource(files, joinPath(path, name)))),
    );
  }
  return sources;
}
