// Layer: apps/cli, demo, tests. The demo's text: which files it is made of, in which order, and what is held out.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";
import { prepareText } from "@diffmamba/datasets";
import { memoryFiles } from "@diffmamba/files/memory";
import { beforeAll, describe, expect, it } from "vitest";
import { demoCorpus } from "./corpus.js";

let names: string[] = [];
let expected = "";

beforeAll(() => {
  const typescript = createRequire(import.meta.url).resolve("typescript/package.json");
  const platform = `@typescript/typescript-${process.platform}-${process.arch}/package.json`;
  const lib = path.join(path.dirname(createRequire(typescript).resolve(platform)), "lib");
  names = readdirSync(lib).filter(
    // The glob lib.*.d.ts: lib.d.ts itself, a list of references, is not among them.
    (name) => name.startsWith("lib.") && name.endsWith(".d.ts") && name !== "lib.d.ts" && !name.includes("webworker"),
  );
  names.sort();
  expected = names.map((name) => readFileSync(path.join(lib, name), "utf8")).join("");
});

async function prepared() {
  const files = memoryFiles();
  return prepareText({ files, source: demoCorpus(), out: "store", splits: { valid: { fraction: 0.1 } } });
}

describe("the demo's text", () => {
  it("is every lib.*.d.ts but those of workers, by name, and its last tenth is held out", async () => {
    expect(names.length).toBeGreaterThan(50);
    expect(expected.length).toBeGreaterThan(500_000);
    const store = await prepared();
    const tokenizer = await store.loadTokenizer();
    const [train, valid] = await Promise.all(
      ["train", "valid"].map(async (name) => {
        const split = store.split(name);
        return tokenizer.decode(await split.read(0, split.length));
      }),
    );
    expect((train + valid).length).toBe(expected.length);
    expect(train + valid === expected).toBe(true);
    // A tenth of the bytes, of which a few characters have two or three.
    expect([...valid].length / [...expected].length).toBeCloseTo(0.1, 4);
    expect(expected).not.toContain("WorkerGlobalScope extends EventTarget");
    expect(store.vocabSize).toBe(new Set(expected).size);
  });
});
