// Layer: datasets. A data set on the Hugging Face hub: which of its files hold a split's texts, with their checksums.
// Knows the hub through its library. Downloads nothing (download.ts).
import type { ListFileEntry } from "@huggingface/hub";
import type { Download } from "./download.js";
import { textKind } from "./text-source.js";
import { StoreError } from "./token-source.js";

export interface HubOptions {
  /** `owner/name`. */
  readonly repo: string;
  /** A branch, tag or commit; `main` unless told. */
  readonly revision?: string;
  /** The configuration: a folder of the repository, or a part of file names. */
  readonly config?: string;
  readonly hubUrl?: string;
  readonly accessToken?: string;
  readonly fetch?: typeof fetch;
}

/** A file of a data set. */
export interface HubFile extends Download {
  /** In the repository. */
  readonly path: string;
}

/** Where the hub keeps every data set as parquet files, made by itself. */
const parquetRevision = "refs/convert/parquet";

const defaultHub = "https://huggingface.co";

async function listed({ repo, hubUrl, accessToken, fetch }: HubOptions, revision: string): Promise<ListFileEntry[]> {
  const { listFiles } = await import("@huggingface/hub"); // loaded only when a data set of the hub is asked for
  const files: ListFileEntry[] = [];
  const options = { ...(hubUrl && { hubUrl }), ...(accessToken && { accessToken }), ...(fetch && { fetch }) };
  try {
    for await (const entry of listFiles({
      repo: { type: "dataset", name: repo },
      recursive: true,
      revision,
      ...options,
    })) {
      // A path that leads out of the folder it is fetched into is no file of a data set.
      if (entry.type === "file" && !/(^|[/\\])\.\.([/\\]|$)|^[/\\]/.test(entry.path)) files.push(entry);
    }
  } catch (error) {
    const { statusCode } = error as { statusCode?: number };
    const detail =
      statusCode === 401 || statusCode === 403 || statusCode === 404
        ? `the hub answered ${statusCode}: there is no such data set or revision, or it wants an access token (HF_TOKEN)`
        : `its files could not be listed (${(error as Error).message})`;
    throw new StoreError(`hf:${repo}@${revision}`, detail, { cause: error });
  }
  return files;
}

const holdsTexts = (path: string): boolean =>
  /\.(parquet|jsonl|ndjson|txt)(\.(gz|xz|zip))?$/.test(path) && !/(^|\/)(\.|README|LICENSE|requirements)/i.test(path);

/** Whether a word is a part of a path, between what separates words: `train` of `data/train-00000-of-00002.parquet`. */
const mentions = (path: string, word: string): boolean =>
  new RegExp(`(^|[/._-])${word.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")}([/._-]|$)`).test(path);

/** Other names of splits. */
const splitNames: Readonly<Record<string, readonly string[]>> = {
  train: ["train"],
  valid: ["validation", "valid", "val", "dev"],
  test: ["test"],
};

function filesOf(entries: readonly ListFileEntry[], names: readonly string[], config?: string): ListFileEntry[] {
  const fitting = entries
    .filter(({ path }) => holdsTexts(path) && (config === undefined || mentions(path, config)))
    .filter(({ path }) => names.some((name) => mentions(path, name)));
  // One kind of file: a data set that is there twice, as parquet and as JSONL, is read once.
  const kind = (["parquet", "jsonl", "text"] as const).find((of) => fitting.some(({ path }) => textKind(path) === of));
  return fitting.filter(({ path }) => textKind(path) === kind).sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * The files of splits, in the order of their names.
 * @param splits "train", "valid", "test", or names of the data set's own
 * @throws StoreError naming the files that there are where a split has none
 */
export async function hubFiles(
  options: HubOptions,
  splits: readonly string[],
): Promise<Readonly<Record<string, readonly HubFile[]>>> {
  const { repo, config, revision = "main", hubUrl = defaultHub } = options;
  const pick = (entries: readonly ListFileEntry[]) =>
    splits.map((split) => [split, filesOf(entries, splitNames[split] ?? [split], config)] as const);
  const complete = (picked: ReturnType<typeof pick>) => picked.every(([, files]) => files.length > 0);
  let from = revision;
  const own = await listed(options, revision);
  let picked = pick(own);
  if (!complete(picked) && options.revision === undefined) {
    const converted = await listed(options, parquetRevision).catch(() => []);
    if (complete(pick(converted))) [picked, from] = [pick(converted), parquetRevision];
  }
  for (const [split, files] of picked) {
    if (files.length > 0) continue;
    const there = own.filter(({ path }) => holdsTexts(path)).map(({ path }) => path);
    const which = config === undefined ? "" : ` of configuration "${config}"`;
    throw new StoreError(
      `hf:${repo}@${revision}`,
      `no file of split "${split}"${which} was found; it has ${there.length === 0 ? "no texts" : there.slice(0, 12).join(", ")}`,
    );
  }
  const base = `${hubUrl}/datasets/${repo}/resolve/${encodeURIComponent(from)}`;
  return Object.fromEntries(
    picked.map(([split, files]) => [
      split,
      files.map(({ path, size, oid, lfs }) => ({
        path,
        url: `${base}/${path.split("/").map(encodeURIComponent).join("/")}`,
        size: lfs?.size ?? size,
        ...(lfs ? { sha256: lfs.oid } : oid !== undefined && { gitSha1: oid }),
      })),
    ]),
  );
}
