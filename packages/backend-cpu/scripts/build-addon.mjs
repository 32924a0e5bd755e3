#!/usr/bin/env node
// Compiles native/ into build/diffmamba-cpu.node: every kernel source for this machine's instruction set (for all of them
// with --all, as a release wants it), the addon, and one link. No build system: one compiler, a few calls at a time.
// Nothing is done where nothing has changed; what works is only ever replaced by what works.
// Knows files and what depends on what. Knows no compiler's flags (toolchain.mjs).

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { compileFlags, findCompiler, instructionSets, linkFlags, nativeInstructionSet } from "./toolchain.mjs";

const usage = `usage: build-addon.mjs [OPTIONS]

Compiles the native addon of @diffmamba/backend-cpu. Without a compiler it says what is used instead, and ends with 0.

  --all              for every instruction set, to run on other machines; default: for this machine's
  --force            also where the platform's prebuilt package is installed and works
  --required         end with 1 where it cannot be built
  --sanitize=NAME    with the address or thread sanitizer, into build-NAME
  --out=FOLDER       where to; default: build, beside this package's sources
  --help

CXX names the compiler; default: g++, c++ or clang++.
`;

const root = path.resolve(import.meta.dirname, "..");
const native = path.join(root, "native");
const flag = { type: "boolean", default: false };
const text = { type: "string" };

function readOptions() {
  try {
    const known = { all: flag, force: flag, required: flag, help: flag, sanitize: text, out: text };
    return parseArgs({ options: known }).values;
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

const options = readOptions();
const { all, sanitize } = options;
const build = path.resolve(options.out ?? path.join(root, sanitize ? `build-${sanitize}` : "build"));
const target = path.join(build, "diffmamba-cpu.node");
const stampFile = path.join(build, "stamp.json");

const say = (line) => console.error(`backend-cpu: ${line}`);

const digest = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part).update("\0");
  return hash.digest("hex");
};

/** The files with these endings directly in a folder, sorted. */
const filesIn = (folder, endings) =>
  readdirSync(folder)
    .filter((file) => endings.test(file))
    .sort()
    .map((file) => path.join(folder, file));

const contents = (files) => files.flatMap((file) => [path.basename(file), readFileSync(file)]);

const headers = [...filesIn(native, /\.h$/), ...filesIn(path.join(native, "kernels"), /\.h$/)];
const kernels = filesIn(path.join(native, "kernels"), /\.cc$/);
const rest = filesIn(native, /\.cc$/);
const scripts = ["build-addon.mjs", "toolchain.mjs"].map((file) => path.join(import.meta.dirname, file));
// How TypeScript calls the addon: one that was built for another of these must not be called.
const callers = [
  path.join(native, "kernels.h"),
  ...["pack.ts", "kernels.ts"].map((file) => path.join(root, "src", file)),
];

/** What the result depends on, told without asking the compiler. */
const stamp = {
  sources: digest(
    JSON.stringify([process.env.CXX, process.platform, process.arch, all || os.cpus()[0]?.model, sanitize]),
    ...contents([...scripts, ...headers, ...kernels, ...rest]),
  ),
  interface: digest(...contents(callers)),
};

/** What the addon that is there was made of; nothing where it is not whole. */
function readStamp() {
  try {
    const { bytes, ...made } = JSON.parse(readFileSync(stampFile, "utf8"));
    return statSync(target).size === bytes ? made : {};
  } catch {
    return {};
  }
}

/** The addon that is used where nothing is built: the platform's package, or an older one of this folder. */
async function existing() {
  if (readStamp().interface !== stamp.interface) rmSync(target, { force: true });
  const search = path.join(root, "dist", "addon.js");
  return existsSync(search) ? (await import(pathToFileURL(search).href)).findAddon() : { addon: undefined };
}

async function giveUp(reason, remedy) {
  const { addon, path: used } = await existing();
  say(
    addon
      ? `${reason}; ${path.relative("", used)} stays, which may be older than the sources. For a new one, ${remedy}.`
      : `${reason}; the reference backend is used, which is much slower. For the fast one, ${remedy}.`,
  );
  process.exit(options.required ? 1 : 0);
}

/** One source compiled once: what it is called, and how. */
function objectsOf(sources, compiler, sets) {
  const common = [
    ...compileFlags(compiler),
    `-I${native}`,
    ...Object.keys(sets).map((isa) => `-DDIFFMAMBA_WITH_${isa.toUpperCase()}`),
    ...(sanitize ? [`-fsanitize=${sanitize}`, "-g", "-fno-omit-frame-pointer"] : []),
  ];
  const shared = digest(compiler.version, ...contents(headers));
  return sources.map(({ source, isa }) => {
    const flags = isa ? [...common, `-DDIFFMAMBA_ISA=${isa}`, ...sets[isa]] : common;
    const name = [path.basename(source, ".cc"), ...(isa ? [isa] : [])].join(".");
    const print = digest(shared, JSON.stringify(flags), readFileSync(source)).slice(0, 16);
    return { source, flags, object: path.join(build, "objects", `${name}.${print}.o`) };
  });
}

/** Compiles into a file of this process's own, which is then put in place, so that one that is there is whole. */
function compile({ command }, { source, flags, object }) {
  const fresh = `${object}.${process.pid}`;
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...flags, "-c", source, "-o", fresh], { stdio: ["ignore", 2, 2] });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (code !== 0) return reject(new Error(`${path.relative(root, source)} does not compile`));
      renameSync(fresh, object);
      resolve();
    });
  });
}

/** Throws where Node does not load the addon, or where it was not built for this machine. */
function check(addon) {
  const script = "process.exit(require(process.argv[1]).describe().isa === 'none' ? 1 : 0)";
  const { status, stderr } = spawnSync(process.execPath, ["-e", script, addon], { encoding: "utf8" });
  if (status !== 0) throw new Error(`it does not load: ${stderr.trim().split("\n")[0] || "wrong instruction set"}`);
}

/** @returns {Promise<string[]>} the instruction sets it was built for */
async function buildAddon(compiler) {
  const known = instructionSets(compiler.arch);
  const native = nativeInstructionSet(compiler);
  const sets = all ? known : { [native]: known[native] };
  const perSet = kernels.flatMap((source) => Object.keys(sets).map((isa) => ({ source, isa })));
  const jobs = objectsOf([...perSet, ...rest.map((source) => ({ source }))], compiler, sets);
  mkdirSync(path.join(build, "objects"), { recursive: true });

  const queue = jobs.filter(({ object }) => !existsSync(object));
  if (queue.length > 0) say(`compiling ${queue.length} files with ${compiler.command}; this takes a moment, once.`);
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await compile(compiler, job);
  };
  await Promise.all(Array.from({ length: os.availableParallelism() }, worker));

  const objects = jobs.map(({ object }) => object);
  const fresh = path.join(build, `diffmamba-cpu.${process.pid}.node`);
  const extra = sanitize ? [`-fsanitize=${sanitize}`] : [];
  const flags = linkFlags(compiler, all, path.join(build, "objects"));
  const linked = spawnSync(compiler.command, [...extra, "-o", fresh, ...objects, ...flags], {
    stdio: ["ignore", 2, 2],
  });
  if (linked.status !== 0) throw new Error("it does not link");
  const runsHere = compiler.platform === process.platform && compiler.arch === process.arch && !sanitize;
  if (runsHere) check(fresh);
  renameSync(fresh, target);
  for (const file of filesIn(path.join(build, "objects"), /\.o$/))
    if (!objects.includes(file)) rmSync(file, { force: true });
  return Object.keys(sets);
}

async function main() {
  if (options.help) return void process.stdout.write(usage);
  if (readStamp().sources === stamp.sources) return;
  // Where a registry put this package, its prebuilt addon is of the same sources. In a clone the sources count.
  const published = root.split(path.sep).includes("node_modules");
  if (published && !options.force && !all && !sanitize) {
    const { addon, path: used } = await existing();
    if (addon) return say(`${used} works here; nothing is built (--force builds one all the same).`);
  }
  const compiler = findCompiler();
  const again = `run \`node ${path.relative("", path.join(import.meta.dirname, "build-addon.mjs"))}\``;
  if (!compiler) {
    const missing = process.env.CXX ? `CXX is ${process.env.CXX}, which is no compiler` : "there is no C++ compiler";
    return giveUp(missing, `install g++ or clang++ and ${again}`);
  }
  const started = performance.now();
  try {
    const sets = await buildAddon(compiler);
    writeFileSync(stampFile, JSON.stringify({ ...stamp, bytes: statSync(target).size }));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    say(`built for ${sets.join(", ")} in ${seconds} s with ${compiler.command}.`);
  } catch (error) {
    await giveUp(`the native addon could not be built: ${error.message.split("\n")[0]}`, `mend that and ${again}`);
  }
}

await main();
