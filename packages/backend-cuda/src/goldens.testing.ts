// Layer: tests of the CUDA backend. The goldens of the conformance suite, from its folder.
// Knows Node's files. Knows no backend.

import { readdir, readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { openGoldens } from "@diffmamba/conformance";

/** What is read of a folder of goldens. */
const files = {
  stat: async (name: string) => {
    const found = await stat(name).catch(() => undefined);
    return found && ({ kind: found.isDirectory() ? "directory" : "file", size: found.size } as const);
  },
  read: async (name: string) => new Uint8Array(await readFile(name)),
  readRange: async (name: string, offset: number, size: number) =>
    new Uint8Array((await readFile(name)).subarray(offset, offset + size)),
  list: async (name: string) => {
    const entries = await readdir(name, { withFileTypes: true });
    const kinds = entries.map((entry) => ({
      name: entry.name,
      kind: entry.isDirectory() ? ("directory" as const) : ("file" as const),
    }));
    return kinds.sort((a, b) => (a.name < b.name ? -1 : 1));
  },
};

export function readGoldens(): ReturnType<typeof openGoldens> {
  const conformance = path.dirname(createRequire(import.meta.url).resolve("@diffmamba/conformance/package.json"));
  return openGoldens(files as Parameters<typeof openGoldens>[0], path.join(conformance, "fixtures", "goldens"));
}
