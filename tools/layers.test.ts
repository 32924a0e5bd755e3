// Layer: tools. Proof that the arrows of the house hold: the table, biome.json, every tsconfig.json and every
// package.json say the same, and the linter rejects each import that the table forbids.
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { apps, biomeOverrides, folders, packages, privatePackages, readJson, references, root } from "./layers.mjs";

const arrows: Record<string, string[]> = folders();
const biome = path.join(root, "node_modules/@biomejs/biome/bin/biome");
let house = "";

// The probes lie in a copy of the house's rules and manifests, so that no build or test ever sees them.
beforeAll(() => {
  house = mkdtempSync(path.join(os.tmpdir(), "diffmamba-layers-"));
  for (const file of ["biome.json", ".gitignore", "package.json"])
    cpSync(path.join(root, file), path.join(house, file));
  for (const folder of Object.keys(arrows)) {
    mkdirSync(path.join(house, folder, "src"), { recursive: true });
    cpSync(path.join(root, folder, "package.json"), path.join(house, folder, "package.json"));
  }
});

afterAll(() => rmSync(house, { recursive: true, force: true }));

/** Writes files into `src` of `folder` and returns the names of the rules that they break. */
async function rulesBroken(folder: string, files: string | Record<string, string>): Promise<string[]> {
  const source = path.join(house, folder, "src");
  rmSync(source, { recursive: true });
  mkdirSync(source);
  for (const [name, text] of Object.entries(typeof files === "string" ? { "index.ts": files } : files)) {
    writeFileSync(path.join(source, name), text);
  }
  const args = [biome, "lint", "--reporter=json", "--max-diagnostics=none", source];
  const run = promisify(execFile)(process.execPath, args, { cwd: house });
  const { stdout } = await run.catch((error: { stdout: string }) => error);
  const report = JSON.parse(stdout) as { diagnostics: { category: string; severity: string }[] };
  return report.diagnostics
    .filter((one) => one.severity === "error")
    .map((one) => one.category.split("/").at(-1) ?? "");
}

const importing = (specifier: string) => `import * as other from "${specifier}";\nexport const probe = other;\n`;

describe("the table of arrows", () => {
  it("names every folder of packages/ and apps/", () => {
    const found = ["packages", "apps"].flatMap((group) =>
      readdirSync(path.join(root, group))
        .map((name) => `${group}/${name}`)
        .filter((folder) => existsSync(path.join(root, folder, "package.json"))),
    );
    expect(Object.keys(arrows).sort()).toEqual(found.sort());
  });

  it("has no cycle", () => {
    const table: Record<string, string[]> = packages;
    const below = (name: string, trail: string[]): void => {
      expect(trail, `${[...trail, name].join(" -> ")} is a cycle`).not.toContain(name);
      for (const next of table[name] ?? []) below(next, [...trail, name]);
    };
    for (const name of Object.keys(table)) below(name, []);
  });

  it("is what biome.json enforces (else: node tools/layers.mjs)", () => {
    expect(readJson("biome.json").overrides).toEqual(biomeOverrides());
  });

  it.each(Object.keys(arrows))("is what %s declares", (folder) => {
    const manifest = readJson(`${folder}/package.json`);
    const declared = Object.keys(manifest.dependencies ?? {}).filter((name) => name.startsWith("@diffmamba/"));
    expect(declared.sort()).toEqual((arrows[folder] ?? []).map((name) => `@diffmamba/${name}`).sort());
    expect(readJson(`${folder}/tsconfig.json`).references ?? []).toEqual(references(folder));
  });

  it("lets nothing published depend on a private package", () => {
    for (const [folder, to] of Object.entries(arrows)) {
      if (readJson(`${folder}/package.json`).private) continue;
      expect(
        to.filter((name) => privatePackages.includes(name)),
        folder,
      ).toEqual([]);
    }
  });
});

describe("the linter", () => {
  it("accepts an import along an arrow", async () => {
    expect(await rulesBroken("packages/nn", importing("@diffmamba/tensor"))).toEqual([]);
  });

  it.each([
    ["up", "packages/tensor", "@diffmamba/nn"],
    ["sideways", "packages/tokenizer", "@diffmamba/tensor"],
    ["from train to its sibling eval", "packages/train", "@diffmamba/eval"],
    ["into a private package", "packages/models", "@diffmamba/conformance"],
    ["to an app", "packages/eval", "@diffmamba/cli"],
    ["from one app to another", "apps/bench", "@diffmamba/cli"],
    ["of a package's inside", "packages/tokenizer", "@diffmamba/tensor/src/dtype.js"],
    ["by a path into another package", "packages/nn", "../../../tensor/src/index.js"],
    ["of a Node entry into browser code", "packages/datasets", "@diffmamba/files/node"],
    ["of the own Node entry into browser code", "packages/files", "../node.js"],
  ])("rejects an import %s", async (_, folder, specifier) => {
    expect(await rulesBroken(folder, importing(specifier))).toContain("noRestrictedImports");
  });

  it("rejects types, re-exports and dynamic imports alike", async () => {
    const specifier = "@diffmamba/models";
    for (const source of [
      `import type { Model } from "${specifier}";\nexport type Probe = Model;\n`,
      `export * from "${specifier}";\n`,
      `export const probe = () => import("${specifier}");\n`,
    ]) {
      expect(await rulesBroken("packages/ssm", source), source).toContain("noRestrictedImports");
    }
  });

  it("keeps Node out of what runs in a browser, but not out of tests and Node entries", async () => {
    const source = importing("node:fs");
    expect(await rulesBroken("packages/nn", source)).toContain("noNodejsModules");
    expect(await rulesBroken("packages/nn", { "x.test.ts": source })).toEqual([]);
    expect(await rulesBroken("packages/nn", { "node.ts": source })).toEqual([]);
    expect(await rulesBroken("packages/nn", "export const home = process.env;\n")).toContain("noRestrictedGlobals");
  });

  it("keeps the arrows in tests too", async () => {
    const broken = await rulesBroken("packages/nn", { "x.test.ts": importing("@diffmamba/models") });
    expect(broken).toContain("noRestrictedImports");
  });

  it("rejects a package that is not declared", async () => {
    expect(await rulesBroken("packages/nn", importing("yaml"))).toContain("noUndeclaredDependencies");
  });

  it("rejects a cycle of files", async () => {
    const files = {
      "a.ts": 'import { b } from "./b.js";\nexport const a = () => b;\n',
      "b.ts": 'import { a } from "./a.js";\nexport const b = () => a;\n',
    };
    expect(await rulesBroken("packages/nn", files)).toContain("noImportCycles");
  });

  it("covers every package and app", () => {
    expect(Object.keys(arrows).length).toBe(Object.keys(packages).length + Object.keys(apps).length);
    const covered = JSON.stringify(biomeOverrides());
    for (const folder of Object.keys(arrows)) expect(covered).toContain(`"${folder}/**"`);
  });
});
