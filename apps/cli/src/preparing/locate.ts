// Layer: apps/cli, preparing. Where a named data set is: where --from says, in the mirror DIFFMAMBA_DATA, or fetched from its public address.
// Prepares nothing.
import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { type DownloadOptions, dataSets, type FetchOptions, fetchDataSet } from "@diffmamba/datasets";
import { findData } from "../data.js";
import type { PrepareFlags, Wanted } from "./flags.js";

/** Where downloads are kept, unless a flag says otherwise. */
export function downloadsFolder({ downloads }: PrepareFlags): string {
  if (downloads !== undefined) return downloads;
  const cache = process.env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache");
  return path.join(cache, "diffmamba", "data");
}

/** What a mirror may call the corpora that are more than one file. */
const mirrored: Readonly<Record<string, (flags: PrepareFlags) => readonly string[]>> = {
  "wikitext-103": ({ level }) =>
    level === "raw"
      ? ["wikitext-103-raw-v1.zip", "wikitext-103-raw-v1", "wikitext-103-raw", "wikitext", "wikitext-103"]
      : ["wikitext-103-v1.zip", "wikitext-103-v1", "wikitext-103", "wikitext"],
  pg19: () => ["pg19", "deepmind-gutenberg"],
  babi: () => [
    ...[
      "babi_tasks_1-20_v1-2.tar.gz",
      "tasks_1-20_v1-2.tar.gz",
      "babi_tasks_v1-2_en.tar.xz",
      "tasks_1-20_v1-2",
      "babi",
    ],
  ],
};

const endings = ["", ".txt", ".xz", ".gz", ".zip", ".txt.xz", ".txt.gz"];

function inMirror(name: string, flags: PrepareFlags): string | undefined {
  const folder = process.env.DIFFMAMBA_DATA;
  if (folder === undefined || folder === "") return undefined;
  const names = Object.hasOwn(dataSets, name)
    ? endings.map((ending) => name + ending)
    : (mirrored[name]?.(flags) ?? []);
  return names.map((each) => path.join(folder, each)).find((file) => existsSync(file));
}

/** The address of the hub, and what is shown to it, as its own tools have them. */
export function hubSettings(): { hubUrl?: string; accessToken?: string } {
  const { HF_ENDPOINT: hubUrl, HF_TOKEN: accessToken } = process.env;
  return { ...(hubUrl && { hubUrl }), ...(accessToken && { accessToken }) };
}

/**
 * The path to prepare a named data set from.
 * @throws CommandError where --from is not there; DownloadError where it does not come
 */
export async function locate({ name, from }: Wanted, flags: PrepareFlags, options: DownloadOptions): Promise<string> {
  if (from !== undefined) return findData(from);
  const found = inMirror(name, flags);
  if (found !== undefined) return found;
  const fetching: FetchOptions = { ...options, ...hubSettings(), ...(flags.level && { level: flags.level }) };
  return fetchDataSet(name, downloadsFolder(flags), fetching);
}
