// Layer: tools. The packed packages, as a user of the registry would get them; pack-check.mjs holds the checks.
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { checks, faultsOf } from "./pack-check.mjs";

const target = mkdtempSync(path.join(os.tmpdir(), "diffmamba-pack-"));
afterAll(() => rmSync(target, { recursive: true, force: true }));

describe.sequential("the packed packages", () => {
  for (const [title, work] of checks(target) as [string, () => unknown][]) {
    it(title, { timeout: 300_000 }, async () => {
      await work();
    });
  }
});

describe("the list of faults", () => {
  const entry = { "@diffmamba/source": "./src/index.ts", types: "./dist/index.d.ts", default: "./dist/index.js" };
  const whole = ["LICENSE", "README.md", "package.json", "src/index.ts", "dist/index.js", "dist/index.d.ts"];
  const faults = (files: string[]) => faultsOf({ name: "p", exports: { ".": entry }, files });

  it("is empty for a whole tarball", () => {
    expect(faults(whole)).toEqual([]);
  });

  it.each(whole)("names %s when it is missing", (missing) => {
    expect(faults(whole.filter((file) => file !== missing)).join("\n")).toContain(missing);
  });

  it.each(["src/a.test.ts", "src/fixtures/a.json", "dist/a.testing.js", "dist/tsconfig.tsbuildinfo", "dist/old.js"])(
    "names %s, which does not belong",
    (extra) => {
      expect(faults([...whole, extra]).join("\n")).toContain(extra);
    },
  );
});
