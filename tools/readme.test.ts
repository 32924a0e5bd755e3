// Layer: tools. Runs and type-checks every ```ts block of the READMEs against the sources, so that examples stay true.
// A block that cannot run by itself says so: ```ts no-run. Each block is a program of its own.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readJson, root } from "./layers.mjs";

interface Example {
  /** README and line of the block, as in `packages/nn/README.md:12`. */
  readonly where: string;
  readonly code: string;
  readonly runs: boolean;
}

/** The ```ts blocks of a Markdown text. Throws when a block is never closed. */
function examplesOf(file: string, text: string): Example[] {
  const examples: Example[] = [];
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const fence = /^(`{3,})(\S*)[ \t]*(.*)$/.exec(lines[i] ?? "");
    if (!fence) continue;
    const start = i;
    const [, ticks = "", language = "", flags = ""] = fence;
    while (++i < lines.length && lines[i]?.trimEnd() !== ticks);
    if (i >= lines.length) throw new Error(`${file}:${start + 1}: this code block is never closed`);
    if (!["ts", "typescript"].includes(language)) continue;
    if (!["", "no-run"].includes(flags.trim())) {
      throw new Error(`${file}:${start + 1}: unknown flag "${flags.trim()}"; the only one is no-run`);
    }
    examples.push({ where: `${file}:${start + 1}`, code: lines.slice(start + 1, i).join("\n"), runs: flags === "" });
  }
  return examples;
}

const packageReadmes = readdirSync(path.join(root, "packages"))
  .filter((name) => existsSync(path.join(root, "packages", name, "package.json")))
  .map((name) => `packages/${name}/README.md`);
const readmes = ["README.md", ...packageReadmes, "apps/cli/README.md"].filter((file) =>
  existsSync(path.join(root, file)),
);
const examples = readmes.flatMap((file) => examplesOf(file, readFileSync(path.join(root, file), "utf8")));

let folder = "";
beforeAll(() => {
  // Below tools/, so that the packages resolve as they do for a user who has installed them.
  mkdirSync(path.join(root, "tools/.tmp"), { recursive: true });
  folder = mkdtempSync(path.join(root, "tools/.tmp/readme-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Bundles an example from the sources and runs it in an empty folder; rejects with its output when it fails. */
async function runExample(code: string): Promise<string> {
  const cwd = mkdtempSync(path.join(os.tmpdir(), "diffmamba-readme-"));
  try {
    const outfile = path.join(cwd, "example.mjs");
    await build({
      stdin: { contents: code, resolveDir: path.join(root, "tools"), loader: "ts" },
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      conditions: ["@diffmamba/source"],
      banner: {
        js: 'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);',
      },
      logLevel: "silent",
    });
    return (await promisify(execFile)(process.execPath, [outfile], { cwd, timeout: 60_000 })).stdout;
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

/** Type-checks programs together; returns the compiler's output, empty when all is well. */
async function typeErrors(programs: readonly string[]): Promise<string> {
  const files = programs.map((code, i) => {
    writeFileSync(path.join(folder, `example-${i}.ts`), code);
    return `example-${i}.ts`;
  });
  const config = {
    extends: "../../../tsconfig.test.json",
    compilerOptions: { noUnusedLocals: false, allowJs: false },
    files,
    include: [],
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(config));
  const tsc = path.join(root, "node_modules/typescript/bin/tsc");
  const run = promisify(execFile)(process.execPath, [tsc, "-p", folder, "--pretty", "false"], { cwd: folder });
  return (await run.catch((error: { stdout: string }) => error)).stdout;
}

describe("the examples of the READMEs", () => {
  for (const { where, code } of examples.filter((example) => example.runs)) {
    it(`${where} runs`, { timeout: 120_000 }, async () => {
      await runExample(code);
    });
  }

  it("type-check", { timeout: 120_000 }, async () => {
    const output = await typeErrors(examples.map((example) => example.code));
    const named = output.replace(/example-(\d+)\.ts/g, (_, i: string) => examples[Number(i)]?.where ?? i);
    expect(named).toBe("");
  });

  it.each(packageReadmes.filter((file) => readmes.includes(file)))("%s has one that runs", (file) => {
    if (readJson(path.join(path.dirname(file), "package.json")).private) return;
    expect(examples.some((example) => example.runs && example.where.startsWith(`${file}:`))).toBe(true);
  });
});

describe("the extraction of examples", () => {
  it("takes ts blocks, runs all but those that opt out, and leaves other languages", () => {
    const text = "# x\n```sh\nls\n```\n```ts\nlet a = 1;\n```\n````ts no-run\n```\nb\n````\n";
    expect(examplesOf("R.md", text)).toEqual([
      { where: "R.md:5", code: "let a = 1;", runs: true },
      { where: "R.md:8", code: "```\nb", runs: false },
    ]);
  });

  it("rejects a block that is never closed, and a flag that it does not know", () => {
    expect(() => examplesOf("R.md", "```ts\nlet a = 1;\n")).toThrow("R.md:1: this code block is never closed");
    expect(() => examplesOf("R.md", "```ts norun\n```\n")).toThrow('unknown flag "norun"');
  });

  it("fails on an example that throws, that does not resolve or that does not type-check", async () => {
    await expect(runExample('throw new Error("as told");')).rejects.toThrow("as told");
    await expect(runExample('import "@diffmamba/nothing";')).rejects.toThrow("@diffmamba/nothing");
    expect(await typeErrors(['export const n: number = "one";'])).toContain("TS2322");
  });
});
