#!/usr/bin/env node
// Compiles native/kernels and native/wasm into wasm/kernels-*.wasm: the kernels of the CPU backend for browsers, with plain
// SIMD and with relaxed SIMD, each for one thread and for several. No C++ library: native/wasm/include stands in.
// Nothing is done where nothing has changed. Knows clang's flags. Knows no kernel.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const usage = `usage: build-wasm.mjs [OPTIONS]

Compiles the WebAssembly build of @diffmamba/backend-cpu into its folder wasm. Without clang it says what is missing, and
ends with 0.

  --required         end with 1 where it cannot be built
  --help

WASM_CXX names the compiler, a clang++ of version 17 or later with its wasm-ld; default: clang++-19 or clang++.
`;

const root = path.resolve(import.meta.dirname, "..");
const native = path.join(root, "native");
const target = path.join(root, "wasm");
const build = path.join(root, "build-wasm");
const stampFile = path.join(build, "stamp.json");

/** What src/wasm/instance.ts gives a module to begin with, and what src/wasm/helpers.ts gives a helper. */
const memoryBytes = 16 * 65536;
const stackBytes = 262144;

const relaxed = { compile: ["-mrelaxed-simd"], link: [] };
// Objects for several threads cannot be linked for one: the linker places what is thread-local differently.
const threads = {
  compile: ["-pthread", "-matomics"],
  link: ["--shared-memory", "--export=__wasm_init_tls", "--export=__tls_size"],
};
const variants = { simd: [], "simd-threads": [threads], relaxed: [relaxed], "relaxed-threads": [relaxed, threads] };

/** Sources of many loops for each of many types, which wait for memory: in half the bytes they are as fast. */
const forSize = new Set(["copy", "elementwise", "indexing", "random", "softmaxCrossEntropy"]);

const compileFlags = [
  "--target=wasm32",
  "-std=c++17",
  "-fno-exceptions",
  "-fno-rtti",
  "-fno-threadsafe-statics",
  "-fno-math-errno",
  "-fno-trapping-math",
  "-ffp-contract=fast",
  "-fvisibility=hidden",
  "-nostdinc++",
  `-isystem${path.join(native, "wasm", "include")}`,
  `-I${native}`,
  "-mbulk-memory",
  "-mmutable-globals",
  "-msimd128",
  "-DDIFFMAMBA_ISA=wasm",
  "-Wall",
  "-Wextra",
  "-Wno-bitwise-conditional-parentheses",
  // Nobody would run what makes them.
  "-Werror=global-constructors",
];

const linkFlags = [
  "--no-entry",
  "--import-memory",
  `--initial-memory=${memoryBytes}`,
  `--max-memory=${2 ** 32}`,
  "-z",
  `stack-size=${stackBytes}`,
  // Below all data: a stack that is too deep is a fault, not a write into something else.
  "--stack-first",
  "--strip-all",
  "--export=__stack_pointer",
];

const say = (line) => console.error(`backend-cpu: ${line}`);

function readOptions() {
  try {
    const flag = { type: "boolean", default: false };
    return parseArgs({ options: { required: flag, help: flag } }).values;
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

const outputOf = (command, args) => {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
};

/** @returns the compiler and its linker, or what is missing */
function findTools() {
  const given = process.env.WASM_CXX;
  const candidates = given ? [given] : ["clang++-19", "clang++"];
  for (const command of candidates) {
    const version = outputOf(command, ["--version"]);
    if (Number(/clang version (\d+)/.exec(version ?? "")?.[1] ?? 0) < 17) continue;
    const linker = [outputOf(command, ["-print-prog-name=wasm-ld"]), command.replace("clang++", "wasm-ld")];
    const found = linker.find((one) => one && outputOf(one, ["--version"]) !== undefined);
    return found
      ? { command, version, linker: found }
      : { missing: `the linker of ${command}, wasm-ld (Debian: lld-19)` };
  }
  return {
    missing: given
      ? `clang++ 17 or later, which WASM_CXX=${given} is not`
      : "clang++ 17 or later (Debian: clang-19 lld-19)",
  };
}

const filesIn = (folder, endings) =>
  readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.test(entry.name))
    .map((entry) => path.join(folder, entry.name))
    .sort();

const folders = [native, path.join(native, "kernels"), path.join(native, "wasm")];
const sources = folders.slice(1).flatMap((folder) => filesIn(folder, /\.cc$/));
const headers = [
  ...folders.flatMap((folder) => filesIn(folder, /\.h$/)),
  ...filesIn(path.join(native, "wasm", "include"), /./),
];

const digest = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part).update("\0");
  return hash.digest("hex");
};
const contents = (files) => files.flatMap((file) => [path.basename(file), readFileSync(file)]);

function isDone(stamp) {
  try {
    const { bytes, ...made } = JSON.parse(readFileSync(stampFile, "utf8"));
    const whole = Object.entries(bytes).every(([file, size]) => statSync(path.join(target, file)).size === size);
    return whole && JSON.stringify(made) === JSON.stringify(stamp);
  } catch {
    return false;
  }
}

/** Runs a program; throws with `fault` where it does not end with 0. */
function run(command, args, fault) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", 2, 2] });
    child.on("error", reject);
    child.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(fault))));
  });
}

async function buildAll({ command, version, linker }) {
  const shared = digest(version, ...contents(headers));
  const jobs = Object.entries(variants).flatMap(([variant, features]) =>
    sources.map((source) => {
      const level = forSize.has(path.basename(source, ".cc")) ? "-Os" : "-O2";
      const all = [...compileFlags, level, ...features.flatMap(({ compile }) => compile)];
      const print = digest(shared, JSON.stringify(all), readFileSync(source)).slice(0, 16);
      const object = path.join(build, "objects", `${path.basename(source, ".cc")}.${variant}.${print}.o`);
      return { variant, source, object, flags: all };
    }),
  );
  mkdirSync(path.join(build, "objects"), { recursive: true });
  mkdirSync(target, { recursive: true });
  const queue = jobs.filter(({ object }) => !existsSync(object));
  if (queue.length > 0)
    say(`compiling ${queue.length} files for WebAssembly with ${command}; this takes a moment, once.`);
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      const { source, object, flags } = job;
      const fresh = `${object}.${process.pid}`;
      await run(command, [...flags, "-c", source, "-o", fresh], `${path.relative(root, source)} does not compile`);
      renameSync(fresh, object);
    }
  };
  await Promise.all(Array.from({ length: os.availableParallelism() }, worker));

  const bytes = {};
  for (const [variant, features] of Object.entries(variants)) {
    const objects = jobs.filter((job) => job.variant === variant).map(({ object }) => object);
    const file = `kernels-${variant}.wasm`;
    const fresh = path.join(build, `${file}.${process.pid}`);
    const flags = [...linkFlags, ...features.flatMap(({ link }) => link)];
    await run(linker, [...flags, ...objects, "-o", fresh], `${file} does not link`);
    renameSync(fresh, path.join(target, file));
    bytes[file] = statSync(path.join(target, file)).size;
  }
  const kept = new Set(jobs.map(({ object }) => object));
  for (const file of filesIn(path.join(build, "objects"), /\.o$/)) if (!kept.has(file)) rmSync(file, { force: true });
  return bytes;
}

async function main() {
  const options = readOptions();
  if (options.help) return void process.stdout.write(usage);
  const script = path.join(import.meta.dirname, "build-wasm.mjs");
  const stamp = { sources: digest(process.env.WASM_CXX ?? "", ...contents([script, ...headers, ...sources])) };
  if (isDone(stamp)) return;
  const tools = findTools();
  const giveUp = (reason) => {
    const old = existsSync(path.join(target, "kernels-simd.wasm"))
      ? "the one that is there stays, which may be older than the sources"
      : "browsers have no WebAssembly kernels";
    say(`${reason}; ${old}. For new ones: node ${path.relative("", script)}`);
    process.exitCode = options.required ? 1 : 0;
  };
  if (tools.missing) return giveUp(`the WebAssembly build needs ${tools.missing}`);
  const started = performance.now();
  try {
    const bytes = await buildAll(tools);
    writeFileSync(stampFile, JSON.stringify({ ...stamp, bytes }));
    say(`built for WebAssembly in ${((performance.now() - started) / 1000).toFixed(1)} s with ${tools.command}.`);
  } catch (error) {
    giveUp(`the WebAssembly build failed: ${error.message.split("\n")[0]}`);
  }
}

await main();
