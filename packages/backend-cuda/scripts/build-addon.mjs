#!/usr/bin/env node
// Compiles native/ into build/: diffmamba-cuda.node with a C++ compiler alone, and diffmamba-cuda.fatbins, all kernels for all
// architectures, with nvcc where there is one. Nothing is done where nothing has changed; what works is replaced by what works.
// Knows files and what depends on what. Knows no compiler's flags (toolchain.mjs).

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { architectures, compileFlags, findCompiler, findNvcc, linkFlags, nvccFlags } from "./toolchain.mjs";

const usage = `usage: build-addon.mjs [OPTIONS]

Compiles the native addon of @diffmamba/backend-cuda, and its kernels where there is nvcc. No GPU is needed. Without a compiler it
says what is missing, and ends with 0.

  --portable         to run on other machines; default: for this machine's libraries
  --arch=NAMES       kernels for these architectures alone, such as sm_90a: quicker to build; default: all that are published
  --no-kernels       the addon alone, also where there is nvcc
  --required         end with 1 where the addon cannot be built, or a kernel does not compile
  --out=FOLDER       where to; default: build, beside this package's sources
  --help

CXX names the C++ compiler (default: g++, c++ or clang++), NVCC the CUDA compiler (default: nvcc, also of CUDA_HOME).
`;

const root = path.resolve(import.meta.dirname, "..");
const native = path.join(root, "native");

function readOptions() {
  const flag = { type: "boolean", default: false };
  const text = { type: "string" };
  try {
    const known = { portable: flag, "no-kernels": flag, required: flag, help: flag, arch: text, out: text };
    return parseArgs({ options: known }).values;
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

const options = readOptions();
const build = path.resolve(options.out ?? path.join(root, "build"));
const objects = path.join(build, "objects");

const say = (line) => console.error(`backend-cuda: ${line}`);

const digest = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part).update("\0");
  return hash.digest("hex").slice(0, 16);
};

const filesIn = (folder, endings) =>
  readdirSync(folder)
    .filter((file) => endings.test(file))
    .sort()
    .map((file) => path.join(folder, file));

const contents = (files) => files.flatMap((file) => [path.basename(file), readFileSync(file)]);

/** A source and the headers of its folder that it includes, also through others. */
function withHeaders(file, known = new Set()) {
  if (known.has(file) || !existsSync(file)) return known;
  known.add(file);
  for (const [, name] of readFileSync(file, "utf8").matchAll(/^#include "(.+)"$/gm)) {
    withHeaders(path.join(path.dirname(file), name), known);
  }
  return known;
}

/** Compiles sources that changed, a few at a time, each into a file that is then put in place. @returns the results' paths */
async function compileAll(command, version, sources, flags, ending) {
  const jobs = sources.map((source) => {
    const print = digest(version, JSON.stringify(flags), ...contents([...withHeaders(source)]));
    return { source, object: path.join(objects, `${path.basename(source).split(".")[0]}.${print}${ending}`) };
  });
  const queue = jobs.filter(({ object }) => !existsSync(object));
  if (queue.length > 0) say(`compiling ${queue.length} files with ${command}; this takes a moment, once.`);
  const compile = ({ source, object }) =>
    new Promise((resolve, reject) => {
      const fresh = `${object}.${process.pid}`;
      const action = ending === ".o" ? ["-c"] : [];
      const child = spawn(command, [...flags, ...action, source, "-o", fresh], { stdio: ["ignore", 2, 2] });
      child.on("error", reject);
      child.on("exit", (code) => {
        if (code !== 0) return reject(new Error(`${path.relative(root, source)} does not compile`));
        renameSync(fresh, object);
        resolve();
      });
    });
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await compile(job);
  };
  await Promise.all(Array.from({ length: os.availableParallelism() }, worker));
  const made = jobs.map(({ object }) => object);
  for (const { source } of jobs) {
    const stem = `${path.basename(source).split(".")[0]}.`;
    for (const file of filesIn(objects, /./)) {
      if (path.basename(file).startsWith(stem) && file.endsWith(ending) && !made.includes(file)) rmSync(file);
    }
  }
  return made;
}

async function buildAddon(compiler) {
  const made = await compileAll(
    compiler.command,
    compiler.version,
    filesIn(native, /\.cc$/),
    compileFlags(compiler),
    ".o",
  );
  const target = path.join(build, "diffmamba-cuda.node");
  const print = digest(...made.map((file) => path.basename(file)), String(options.portable));
  const stamp = path.join(objects, "addon.stamp");
  if (existsSync(target) && existsSync(stamp) && readFileSync(stamp, "utf8") === print) return false;
  const fresh = path.join(build, `diffmamba-cuda.${process.pid}.node`);
  const flags = linkFlags(compiler, options.portable, objects);
  const linked = spawnSync(compiler.command, ["-o", fresh, ...made, ...flags], { stdio: ["ignore", 2, 2] });
  if (linked.status !== 0) throw new Error("the addon does not link");
  if (compiler.platform === process.platform) {
    const script = "process.exit(require(process.argv[1]).probe() ? 0 : 1)";
    const { status, stderr } = spawnSync(process.execPath, ["-e", script, fresh], { encoding: "utf8" });
    if (status !== 0) throw new Error(`the addon does not load: ${stderr.trim().split("\n")[0]}`);
  }
  renameSync(fresh, target);
  writeFileSync(stamp, print);
  return true;
}

/** The file of all kernels: for each module its length in the first 8 of 16 bytes, then the module, up to a multiple of 16. */
async function buildKernels(nvcc) {
  const wanted = options.arch ? options.arch.split(",") : architectures;
  const folder = path.join(native, "kernels");
  const made = await compileAll(nvcc.command, nvcc.version, filesIn(folder, /\.cu$/), nvccFlags(wanted), ".fatbin");
  const parts = made.flatMap((file) => {
    const bytes = readFileSync(file);
    const head = Buffer.alloc(16);
    head.writeBigUInt64LE(BigInt(bytes.length));
    return [head, bytes, Buffer.alloc((16 - (bytes.length % 16)) % 16)];
  });
  const target = path.join(build, "diffmamba-cuda.fatbins");
  const whole = Buffer.concat(parts);
  if (existsSync(target) && readFileSync(target).equals(whole)) return undefined;
  const fresh = `${target}.${process.pid}`;
  writeFileSync(fresh, whole);
  renameSync(fresh, target);
  return `${(whole.length / 1e6).toFixed(1)} MB of kernels for ${wanted.join(", ")}`;
}

async function main() {
  if (options.help) return void process.stdout.write(usage);
  const again = `run \`node ${path.relative("", path.join(import.meta.dirname, "build-addon.mjs"))}\``;
  const compiler = findCompiler();
  if (!compiler) {
    say(`there is no C++ compiler; the CUDA backend is not built. Install g++ or clang++ and ${again}.`);
    process.exit(options.required ? 1 : 0);
  }
  mkdirSync(objects, { recursive: true });
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
  try {
    if (await buildAddon(compiler)) say(`the addon was built in ${seconds()} s with ${compiler.command}.`);
    if (options["no-kernels"]) return;
    const nvcc = findNvcc();
    if (!nvcc) return say(`there is no nvcc, so there are no kernels here. With CUDA's toolkit 13, ${again}.`);
    const kernels = await buildKernels(nvcc);
    if (kernels) say(`${kernels} were built in ${seconds()} s.`);
  } catch (error) {
    say(`${error.message.split("\n")[0]}; mend that and ${again}.`);
    process.exit(options.required ? 1 : 0);
  }
}

await main();
