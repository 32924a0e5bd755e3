// The README quotes sources, to show how an op is added. What it quotes must be there, word for word.
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(path.join(root, "README.md"), "utf8");
const quotes = [...readme.matchAll(/^```tsx\n\/\/ (\S+)\n([\s\S]*?)\n```$/gm)].map(([, file, text]) => ({
  file,
  text,
}));

describe("the README's page on adding an op", () => {
  it("quotes every place that an op touches", () => {
    const cases = "../conformance/src/cases/reduce.ts";
    const places = ["src/ops/reduce.ts", "src/backend.ts", "src/reference/reduce.ts", cases];
    expect(new Set(quotes.map(({ file }) => file))).toEqual(new Set(places));
  });

  it.each(quotes)("quotes $file as it is", ({ file, text }) => {
    expect(readFileSync(path.join(root, file), "utf8")).toContain(text);
  });

  it("names files that exist", () => {
    for (const [, file] of readme.matchAll(/`((?:src|packages)\/[\w/]+\.ts)`/g)) {
      const from = file.startsWith("packages/") ? path.join(root, "..", "..") : root;
      expect(readFileSync(path.join(from, file), "utf8").length, file).toBeGreaterThan(0);
    }
  });
});
