// For tests: the golden files of the conformance suite, from its folder.

import { readdir, readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { openGoldens } from "@diffmamba/conformance";

type Files = Parameters<typeof openGoldens>[0];

/** What is read of a folder of goldens. */
const files: Pick<Files, "stat" | "read" | "readRange" | "list"> = {
  stat: async (name) => {
    const found = await stat(name).catch(() => undefined);
    return found && { kind: found.isDirectory() ? "directory" : "file", size: found.size };
  },
  read: async (name) => new Uint8Array(await readFile(name)),
  readRange: async (name, offset, size) => new Uint8Array((await readFile(name)).subarray(offset, offset + size)),
  list: async (name) => {
    const entries = await readdir(name, { withFileTypes: true });
    return entries
      .map((entry) => ({ name: entry.name, kind: entry.isDirectory() ? ("directory" as const) : ("file" as const) }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  },
};

export function readGoldens(): ReturnType<typeof openGoldens> {
  const conformance = path.dirname(createRequire(import.meta.url).resolve("@diffmamba/conformance/package.json"));
  return openGoldens(files as Files, path.join(conformance, "fixtures", "goldens"));
}
