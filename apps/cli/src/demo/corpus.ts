// Layer: apps/cli, demo. Real text that is always there: the type declarations that come with the TypeScript compiler.
// Knows where packages lie. Knows no tokenizer and no model.
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";
import { fileSource, joinSources } from "@diffmamba/datasets";
import { nodeFiles } from "@diffmamba/files/node";
import { CommandError } from "../errors.js";

/** The folder of `lib.*.d.ts`: beside the compiler's binary, in the package of this platform that `typescript` depends on. */
function libraryFolder(): string {
  const platform = `@typescript/typescript-${process.platform}-${process.arch}`;
  try {
    const typescript = createRequire(import.meta.url).resolve("typescript/package.json");
    return path.join(path.dirname(createRequire(typescript).resolve(`${platform}/package.json`)), "lib");
  } catch (error) {
    throw new CommandError(
      `the demo's text was not found: it is the lib.*.d.ts files of the package ${platform}, which comes with typescript 7.`,
      { cause: error },
    );
  }
}

/** All declarations but those of workers, which repeat the others, in the order of their names. */
export function demoCorpus() {
  const folder = libraryFolder();
  const names = readdirSync(folder)
    .filter((name) => /^lib\..*\.d\.ts$/.test(name) && !name.startsWith("lib.webworker"))
    .sort();
  if (names.length === 0)
    throw new CommandError(`${folder}: there are no lib.*.d.ts files here, which are the demo's text.`);
  const files = nodeFiles();
  return joinSources(
    "TypeScript's lib.*.d.ts",
    names.map((name) => fileSource(files, path.join(folder, name))),
  );
}
