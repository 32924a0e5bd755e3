// Layer: tools. Writes the task files of packages/eval/tasks into its src/taskFiles.generated.ts, so that they are there in a browser
// too: `node tools/tasks.mjs` after a change of one. A test compares the two.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(import.meta.dirname, "../packages/eval");
const folder = path.join(root, "tasks");

/** What src/taskFiles.generated.ts is to hold. */
export function generated() {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith(".yaml"))
    .sort();
  const entries = names.map((name) => {
    const text = readFileSync(path.join(folder, name), "utf8");
    return `  ${JSON.stringify(name)}: ${JSON.stringify(text)},`;
  });
  return [
    "// Layer: eval. The task files of tasks/, as text. Written by tools/tasks.mjs: change the files, then run it.",
    "// biome-ignore-all format: one line a file",
    "export const taskTexts: Readonly<Record<string, string>> = {",
    ...entries,
    "};",
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(path.join(root, "src/taskFiles.generated.ts"), generated());
}
