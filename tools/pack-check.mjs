// Layer: tools. What a user of the registry would get: packs every public package, checks each tarball with publint
// and attw, installs all of them into a blank project, imports every entry and type-checks the imports. Where the native
// addon has been built, its platform's package is installed too, and must be found and used.
// Needs an installed and built workspace. `node tools/pack-check.mjs` prints what passed and what failed.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { folders, readJson, root } from "./layers.mjs";
import { platforms, withPlatforms, writePlatformPackage } from "./prebuilt.mjs";

const pnpm = path.join(root, "node_modules/pnpm/bin/pnpm.cjs");
const tsc = path.join(root, "node_modules/typescript/bin/tsc");
const publint = path.join(root, "tools/node_modules/publint/src/cli.js");
const attw = path.join(root, "tools/node_modules/@arethetypeswrong/cli/dist/index.js");

const addon = path.join(root, "packages/backend-cpu/build/diffmamba-cpu.node");
const platform = `${process.platform}-${process.arch}`;
const hasAddon = existsSync(addon) && platform in platforms;

/** A folder of the workspace whose package is published. */
const publicFolders = Object.keys(folders()).filter((folder) => !readJson(`${folder}/package.json`).private);

/** Runs a program and returns its output; throws an error with that output when it fails. */
function run(command, args, cwd) {
  const env = { ...process.env, CI: "true", NO_COLOR: "1", npm_config_loglevel: "error" };
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd, env, maxBuffer: 1 << 26, timeout: 240_000 }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      const shown = [command, ...args].map((part) => path.basename(part)).join(" ");
      reject(new Error(`\`${shown}\` failed (${error.signal ?? error.code}):\n${stdout}${stderr}`));
    });
  });
}

const node = (args, cwd) => run(process.execPath, args, cwd);

/** Runs `work` over `items`, at most `width` at a time. */
async function each(items, width, work) {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

/**
 * Packs every public package into `target` and returns the manifests as packed, each with its tarball.
 * The tarballs are those that `pnpm publish` would send: `workspace:` and `catalog:` are replaced by versions.
 */
export async function pack(target) {
  const filters = publicFolders.flatMap((folder) => ["--filter", `./${folder}`]);
  const made = JSON.parse(await node([pnpm, "-r", ...filters, "pack", "--json", "--pack-destination", target], root));
  const folderOf = new Map(publicFolders.map((folder) => [readJson(`${folder}/package.json`).name, folder]));
  const packages = [];
  for (const { name, filename } of made) {
    const folder = folderOf.get(name);
    if (folder === undefined) throw new Error(`pnpm packed ${name}, which is not to be published`);
    const tarball = path.resolve(target, filename);
    // The list that pnpm prints leaves out the licence that it adds, so the tarball itself is asked.
    const files = (await run("tar", ["-tzf", tarball], root)).trim().split("\n");
    const { exports } = readJson(`${folder}/package.json`);
    packages.push({ name, folder, exports, tarball, files: files.map((file) => file.replace(/^package\//, "")) });
  }
  if (packages.length < publicFolders.length) {
    throw new Error(`pnpm packed ${packages.length} of ${publicFolders.length} packages`);
  }
  return packages.sort((a, b) => a.name.localeCompare(b.name));
}

/** The specifiers that a package exports and that can be imported: not its package.json. */
export function entries({ name, exports }) {
  return Object.keys(exports)
    .filter((key) => key !== "./package.json")
    .map((key) => name + key.slice(1));
}

/** What one tarball must hold, and must not. Returns the faults found. */
export function faultsOf({ name, exports, files }) {
  const faults = [];
  for (const wanted of ["LICENSE", "README.md", "package.json"]) {
    if (!files.includes(wanted)) faults.push(`${name}: ${wanted} is missing from the tarball`);
  }
  for (const conditions of Object.values(exports)) {
    for (const target of typeof conditions === "string" ? [conditions] : Object.values(conditions)) {
      if (!files.includes(target.slice(2))) faults.push(`${name}: exports point at ${target}, which is not packed`);
    }
  }
  const unwanted = files.filter((file) =>
    /\.test\.|\.testing\.|\.tsbuildinfo$|(^|\/)(__)?fixtures(__)?\/|(^|\/)node_modules\//.test(file),
  );
  for (const file of unwanted) faults.push(`${name}: ${file} does not belong into the tarball`);
  for (const file of files.filter((one) => /^dist\/.*\.js$/.test(one))) {
    const source = file.replace(/^dist/, "src").replace(/js$/, "ts");
    if (!files.includes(source)) faults.push(`${name}: ${file} is left from an old build (no ${source}); delete dist`);
  }
  return faults;
}

/** Lints one tarball with publint; throws with its report. */
export const lintTarball = ({ tarball }) => node([publint, tarball, "--strict"], root);

/** Checks the types of one tarball with attw; a package without importable entries has none. Throws with its report. */
export async function checkTypes(one) {
  if (entries(one).length > 0) await node([attw, one.tarball, "--profile", "esm-only", "--no-emoji"], root);
}

/** Packs a folder outside the workspace; returns the tarball. */
async function packFolder(folder, target) {
  const [{ filename }] = JSON.parse(await run("npm", ["pack", "--json", "--pack-destination", target], folder));
  return path.resolve(target, filename);
}

/**
 * As the release does it: packs this platform's addon as a package, and backend-cpu with that as an optional dependency.
 * @returns the packages with backend-cpu's new tarball, and the platform's package with its own
 */
export async function packPrebuilt(target, packages) {
  const backend = packages.find(({ folder }) => folder === "packages/backend-cpu");
  mkdirSync(target);
  await run("tar", ["-xzf", backend.tarball, "-C", target], root);
  const folder = path.join(target, "package");
  const file = path.join(folder, "package.json");
  const manifest = withPlatforms(JSON.parse(readFileSync(file, "utf8")), [platform]);
  writeFileSync(file, JSON.stringify(manifest));
  const tarball = await packFolder(folder, target);
  const own = path.join(target, platform);
  const name = writePlatformPackage(platform, [addon], manifest, own);
  const prebuilt = { name, tarball: await packFolder(own, target) };
  return { packages: packages.map((one) => (one === backend ? { ...one, tarball } : one)), prebuilt };
}

/**
 * Makes a blank project in `target` that depends on all tarballs. Packages of the house resolve to the tarballs
 * (`overrides`), everything else to the registry. The prebuilt package, if there is one, comes with the package that wants it.
 */
export async function installBlank(target, packages, prebuilt) {
  const url = ({ tarball }) => pathToFileURL(tarball).href;
  const dependencies = Object.fromEntries(packages.map((one) => [one.name, url(one)]));
  const manifest = {
    name: "blank",
    private: true,
    type: "module",
    dependencies,
    overrides: {
      ...Object.fromEntries(packages.map((one) => [one.name, `$${one.name}`])),
      ...(prebuilt && { [prebuilt.name]: url(prebuilt) }),
    },
    devDependencies: { "@types/node": readJson("node_modules/@types/node/package.json").version },
  };
  mkdirSync(target, { recursive: true });
  writeFileSync(path.join(target, "package.json"), JSON.stringify(manifest, null, 2));
  await run("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts"], target);
  // A second copy from elsewhere would hide what the tarballs lack.
  for (const one of packages) {
    const nested = path.join(target, "node_modules", one.name, "node_modules", "@diffmamba");
    let found = [];
    try {
      found = readdirSync(nested);
    } catch {
      continue;
    }
    if (found.length > 0) throw new Error(`${one.name} brought its own copy of ${found.join(", ")}`);
  }
}

/** Imports every entry in Node, from the blank project and without any condition of this repository. */
export async function importAll(target, packages) {
  const lines = packages.flatMap(entries).map((specifier) => `await import(${JSON.stringify(specifier)});`);
  writeFileSync(path.join(target, "imports.js"), lines.join("\n"));
  await node(["imports.js"], target);
}

/** Type-checks a file that imports every entry, the packages' own declarations included, strictly. */
export async function typeCheckAll(target, packages) {
  const specifiers = packages.flatMap(entries);
  const lines = specifiers.map((specifier, i) => `import * as entry${i} from ${JSON.stringify(specifier)};`);
  lines.push(`export const all: readonly object[] = [${specifiers.map((_, i) => `entry${i}`).join(", ")}];`);
  writeFileSync(path.join(target, "imports.ts"), lines.join("\n"));
  const compilerOptions = {
    target: "es2023",
    module: "nodenext",
    lib: ["es2023", "esnext.disposable", "dom"],
    types: ["node"],
    strict: true,
    noEmit: true,
    skipLibCheck: false,
  };
  writeFileSync(path.join(target, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["imports.ts"] }));
  await node([tsc, "-p", "tsconfig.json"], target);
}

/** The prebuilt addon of the blank project computes, is what is used, and leaves nothing to build. */
export async function usePrebuilt(target, { name }) {
  const program = `
    import assert from "node:assert";
    import { cpu, cpuAvailability } from "@diffmamba/backend-cpu";
    const found = cpuAvailability();
    assert(found.available && found.path.includes(${JSON.stringify(path.join(...name.split("/")))}), JSON.stringify(found));
    const device = await cpu({ threads: 2 });
    const product = device.ones([2, 3]).matmul(device.ones([3, 2]));
    assert.deepEqual([...(await product.data())], [3, 3, 3, 3]);
    await device.dispose();
  `;
  writeFileSync(path.join(target, "prebuilt.js"), program);
  await node(["prebuilt.js"], target);
  await run(path.join(target, "node_modules/.bin/diffmamba-build-cpu"), ["--required"], target);
  const built = path.join(target, "node_modules/@diffmamba/backend-cpu/build");
  if (existsSync(built)) throw new Error(`${built}: an addon was built although there is a prebuilt one`);
  // One of another version would be called wrongly, and is refused.
  const manifest = path.join(target, "node_modules", name, "package.json");
  const original = readFileSync(manifest, "utf8");
  writeFileSync(manifest, JSON.stringify({ ...JSON.parse(original), version: "999.0.0" }));
  const ask = 'import("@diffmamba/backend-cpu").then(({ cpuAvailability }) => console.log(cpuAvailability().reason))';
  const reason = await node(["-e", ask], target);
  writeFileSync(manifest, original);
  if (!reason.includes("its version is 999.0.0")) throw new Error(`another version was not refused: ${reason}`);
}

/** Starts each command that the blank project got, asking for its help. */
export async function runBins(target, packages) {
  for (const { folder } of packages) {
    for (const bin of Object.keys(readJson(`${folder}/package.json`).bin ?? {})) {
      await run(path.join(target, "node_modules/.bin", bin), ["--help"], target);
    }
  }
}

/** All checks, in order, as `[title, work]`. The first packs into `target`; the others look at what it made. */
export function checks(target) {
  const tarballs = path.join(target, "tarballs");
  const blank = path.join(target, "blank");
  let made;
  const packages = () => {
    if (made === undefined) throw new Error("nothing was packed");
    return made;
  };
  let prebuilt;
  const withAddon = [
    [
      "the native addon packs as its platform's package",
      async () => {
        ({ packages: made, prebuilt } = await packPrebuilt(path.join(target, "prebuilt"), packages()));
      },
    ],
  ];
  const afterInstall = [["the prebuilt addon is found, and computes", () => usePrebuilt(blank, prebuilt)]];
  return [
    [
      `${publicFolders.length} packages pack`,
      async () => {
        mkdirSync(tarballs);
        made = await pack(tarballs);
      },
    ],
    [
      "each tarball holds what its exports name, and no more",
      () => {
        const faults = packages().flatMap(faultsOf);
        if (faults.length > 0) throw new Error(faults.join("\n"));
      },
    ],
    ["publint is clean", () => each(packages(), 2, lintTarball)],
    ["attw is clean", () => each(packages(), 2, checkTypes)],
    ...(hasAddon ? withAddon : []),
    ["a blank project installs the tarballs", () => installBlank(blank, packages(), prebuilt)],
    ["every entry imports in Node", () => importAll(blank, packages())],
    ["every entry type-checks", () => typeCheckAll(blank, packages())],
    ["every command starts", () => runBins(blank, packages())],
    ...(hasAddon ? afterInstall : []),
  ];
}

async function main() {
  const target = mkdtempSync(path.join(os.tmpdir(), "diffmamba-pack-"));
  const results = { passed: 0, failed: 0 };
  try {
    for (const [title, work] of checks(target)) {
      try {
        await work();
        results.passed++;
        process.stdout.write(`ok      ${title}\n`);
      } catch (error) {
        results.failed++;
        process.stdout.write(`FAILED  ${title}\n${error.message}\n`);
      }
    }
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
  process.stdout.write(`${results.passed} passed, ${results.failed} failed\n`);
  if (results.failed > 0) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
