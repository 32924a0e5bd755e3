// Layer: tools. The arrows of the house, in one place: which package may import which.
// `node tools/layers.mjs` writes them into biome.json (lint) and every tsconfig.json (build order);
// layers.test.ts fails when those files, or a package.json, disagree with this table.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = path.resolve(import.meta.dirname, "..");

/** Each package with the packages that it may import. An arrow only points down. */
export const packages = {
  files: [],
  random: [],
  tensor: ["random"],
  "backend-cpu": ["tensor"],
  "backend-webgpu": ["tensor"],
  "backend-cuda": ["tensor"],
  nn: ["random", "tensor"],
  ssm: ["nn", "random", "tensor"],
  differential: ["nn", "ssm", "tensor"],
  models: ["differential", "files", "nn", "random", "ssm", "tensor"],
  tokenizer: ["files"],
  datasets: ["files", "random", "tokenizer"],
  train: ["datasets", "files", "models", "nn", "random", "tensor"],
  eval: ["datasets", "files", "models", "random", "tensor", "tokenizer"],
  conformance: ["differential", "files", "models", "nn", "random", "ssm", "tensor"],
};

/** What only the tests of a package may import besides: a backend runs the conformance suite on itself. */
export const testPackages = {
  "backend-cpu": ["conformance"],
  "backend-webgpu": ["conformance"],
  "backend-cuda": ["conformance"],
};

/** Packages that are for Node alone. */
export const nodePackages = ["backend-cpu", "backend-cuda"];

/** Packages that are never published; nothing that is published may import them. */
export const privatePackages = ["conformance"];

const all = Object.keys(packages);

/** Each app with the packages that it may import. Nothing imports an app. */
export const apps = {
  cli: all.filter((name) => !privatePackages.includes(name)),
  bench: all,
  playground: [
    "backend-cpu",
    "backend-webgpu",
    "datasets",
    "eval",
    "files",
    "models",
    "nn",
    "tensor",
    "tokenizer",
    "train",
  ],
};

/** Folders of the workspace with their arrows: `packages/nn` to `["tensor"]`. */
export function folders() {
  return {
    ...Object.fromEntries(Object.entries(packages).map(([name, to]) => [`packages/${name}`, to])),
    ...Object.fromEntries(Object.entries(apps).map(([name, to]) => [`apps/${name}`, to])),
  };
}

const message = (folder, to) =>
  `${folder} may import ${to.length ? to.map((name) => `@diffmamba/${name}`).join(", ") : "no package of the house"}: ` +
  "an arrow only points down (tools/layers.mjs).";

/** Patterns that forbid every package of the house but `to`; `nodeEntries` also allows their `./node` entries. */
function restricted(folder, to, nodeEntries) {
  const patterns = [
    {
      group: [
        "@diffmamba/*",
        "@diffmamba/*/**",
        ...to.flatMap((name) => [`!@diffmamba/${name}`, `!@diffmamba/${name}/**`]),
      ],
      message: message(folder, to),
    },
    {
      group: ["../**/src/**", "../**/dist/**"],
      message: "A package is imported by its name, never by a path into its folder.",
    },
  ];
  if (!nodeEntries) {
    patterns.push({
      group: ["@diffmamba/*/node", "./node.js", "../**/node.js"],
      message: "A package runs in a browser: only its src/node.ts and its tests may import a Node entry.",
    });
  }
  return { noRestrictedImports: { level: "error", options: { patterns } } };
}

/** Tests and what only tests import: helpers (`x.testing.ts`) and fixtures. */
const tests = ["*.test.ts", "*.testing.ts", "__fixtures__/**"];

/** Files of a package that may use Node: its Node entry and its tests. */
const nodeFiles = (folder) => [`${folder}/src/node.ts`, ...tests.map((name) => `${folder}/**/${name}`)];

/** The `overrides` of biome.json, whole. */
export function biomeOverrides() {
  const overrides = [
    {
      includes: [
        "packages/**",
        ...tests.map((name) => `!**/${name}`),
        "!packages/*/src/node.ts",
        "!packages/*/scripts/**",
        "!packages/*/*.config.ts",
        ...nodePackages.map((name) => `!packages/${name}/**`),
      ],
      linter: {
        rules: {
          correctness: { noNodejsModules: "error" },
          style: {
            noRestrictedGlobals: {
              level: "error",
              options: {
                deniedGlobals: Object.fromEntries(
                  ["process", "Buffer", "global", "require", "__dirname", "__filename"].map((name) => [
                    name,
                    "A package runs in a browser: Node's globals belong in src/node.ts, tests, apps and tools.",
                  ]),
                ),
              },
            },
          },
          suspicious: { noConsole: "error" },
        },
      },
    },
    {
      // vitest and fast-check belong to the root, which every test may use.
      includes: [...tests.map((name) => `**/${name}`), "**/vitest*.config.ts", "tools/**"],
      linter: { rules: { correctness: { noUndeclaredDependencies: "off" } } },
    },
  ];
  for (const [folder, to] of Object.entries(folders())) {
    if (folder.startsWith("apps/")) {
      overrides.push({ includes: [`${folder}/**`], linter: { rules: { style: restricted(folder, to, true) } } });
      continue;
    }
    overrides.push({ includes: [`${folder}/**`], linter: { rules: { style: restricted(folder, to, false) } } });
    const inTests = [...to, ...(testPackages[path.basename(folder)] ?? [])];
    overrides.push({ includes: nodeFiles(folder), linter: { rules: { style: restricted(folder, inTests, true) } } });
  }
  return overrides;
}

/** The `references` of a folder's tsconfig.json. */
export function references(folder) {
  return folders()[folder].map((name) => ({
    path: folder.startsWith("packages/") ? `../${name}` : `../../packages/${name}`,
  }));
}

/** Reads a JSON file of the repository. */
export function readJson(file) {
  return JSON.parse(readFileSync(path.join(root, file), "utf8"));
}

function writeJson(file, value) {
  writeFileSync(path.join(root, file), `${JSON.stringify(value, null, 2)}\n`);
}

function write() {
  writeJson("biome.json", { ...readJson("biome.json"), overrides: biomeOverrides() });
  const written = ["biome.json"];
  for (const folder of Object.keys(folders())) {
    const file = `${folder}/tsconfig.json`;
    if (!existsSync(path.join(root, file))) throw new Error(`${file} does not exist, but tools/layers.mjs names it`);
    writeJson(file, { ...readJson(file), references: references(folder) });
    written.push(file);
  }
  writeJson("tsconfig.json", { files: [], references: Object.keys(folders()).map((folder) => ({ path: folder })) });
  written.push("tsconfig.json");
  const biome = path.join(root, "node_modules/@biomejs/biome/bin/biome");
  spawnSync(process.execPath, [biome, "format", "--write", ...written], { cwd: root, stdio: "inherit" });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) write();
