// Layer: scripts of backend-webgpu. Writes src/shaders.generated.ts from the files in wgsl/, so that a browser needs no files and a
// shader's name is a type. With --check writes nothing, and fails where the file is not what it would write.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folder = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const target = path.join(folder, "src", "shaders.generated.ts");

/** The files of a folder as one object literal: a name a line. */
function literal(directory) {
  const names = readdirSync(directory).filter((name) => name.endsWith(".wgsl"));
  const lines = names.sort().map((name) => {
    const text = readFileSync(path.join(directory, name), "utf8");
    return `  ${JSON.stringify(name.slice(0, -".wgsl".length))}: ${JSON.stringify(text)},`;
  });
  return `{\n${lines.join("\n")}\n}`;
}

const text = `// Made by scripts/build-shaders.mjs from the files in wgsl/; do not edit.

export const shaders = ${literal(path.join(folder, "wgsl"))} as const;

/** The name of a file in wgsl/, without its ending. */
export type ShaderName = keyof typeof shaders;

/** The files in wgsl/lib/, which others include. */
export const library: Readonly<Record<string, string>> = ${literal(path.join(folder, "wgsl", "lib"))};
`;

if (!process.argv.includes("--check")) {
  writeFileSync(target, text);
} else if (readFileSync(target, "utf8") !== text) {
  process.stderr.write(
    "src/shaders.generated.ts is stale: run `node packages/backend-webgpu/scripts/build-shaders.mjs`.\n",
  );
  process.exitCode = 1;
}
