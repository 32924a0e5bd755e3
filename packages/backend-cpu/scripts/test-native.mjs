#!/usr/bin/env node
// Builds native/tests and runs them: for each instruction set that this machine has, as they are shipped, and with
// sanitizers (address and undefined behaviour together; threads). No test needs Node.
// Knows files. Knows no compiler's flags but those of sanitizers (toolchain.mjs has the rest).

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { compileFlags, findCompiler, instructionSets } from "./toolchain.mjs";

const usage = `usage: test-native.mjs [OPTIONS] [TEST ...]

Builds the tests of native/tests (all of them by default) with all kernels, and runs them. Ends with 1 where one fails.

  --isa=LIST         of base, avx2, avx512; default: what this machine has
  --sanitize=LIST    of none, address, thread; default: all three
  --runner=COMMAND   runs each program, where it is for another machine: --runner="qemu-aarch64 -L /usr/aarch64-linux-gnu"
  --help

CXX names the compiler; default: g++, c++ or clang++.
`;

const root = path.resolve(import.meta.dirname, "..");
const native = path.join(root, "native");
const build = path.join(root, "build-tests");

/** Of undefined behaviour what the address sanitizer does not see; checks of every pointer take minutes to compile. */
const undefinedBehaviour = [
  "-fsanitize=shift,integer-divide-by-zero,unreachable,return,signed-integer-overflow,bounds,float-cast-overflow,bool,enum",
  "-fno-sanitize-recover=all",
];

/** Flags besides those of the addon. */
const sanitizers = {
  none: [],
  address: ["-O2", "-g", "-fno-omit-frame-pointer", "-fsanitize=address", ...undefinedBehaviour],
  thread: ["-O1", "-g", "-fsanitize=thread"],
};

/** What the machine says it has; only Linux on x64 says it in a file. */
function available(sets, arch) {
  if (arch !== "x64" || arch !== process.arch || !existsSync("/proc/cpuinfo")) return ["base"];
  const line = readFileSync("/proc/cpuinfo", "utf8").match(/^flags.*$/m)?.[0] ?? "";
  const flags = line.split(" ");
  return Object.keys(sets).filter((isa) => sets[isa].every((flag) => flags.includes(flag.slice(2))));
}

function readOptions() {
  const text = { type: "string" };
  try {
    const options = { isa: text, sanitize: text, runner: text, help: { type: "boolean" } };
    return parseArgs({ allowPositionals: true, options });
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

/** The parts of a list, each of which must be known. */
function chosen(list, known, what) {
  const parts = list.split(",");
  const unknown = parts.find((part) => !known.includes(part));
  if (unknown === undefined) return parts;
  process.stderr.write(`there is no ${what} ${unknown}; there are ${known.join(", ")}\n\n${usage}`);
  process.exit(2);
}

function run(command, args, what) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit" });
    child.on("error", reject);
    child.on("exit", (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`${what}: FAILED, ${signal ?? `exit status ${code}`}`)),
    );
  });
}

const { values, positionals } = readOptions();
if (values.help) {
  process.stdout.write(usage);
  process.exit(0);
}
const compiler = findCompiler();
if (!compiler) {
  console.error("no C++ compiler was found (install g++ or clang++, or set CXX)");
  process.exit(1);
}
const sets = instructionSets(compiler.arch);
const isas = chosen(values.isa ?? available(sets, compiler.arch).join(","), Object.keys(sets), "instruction set");
const kinds = chosen(values.sanitize ?? Object.keys(sanitizers).join(","), Object.keys(sanitizers), "sanitizer");
const known = readdirSync(path.join(native, "tests")).filter((file) => file.endsWith("_test.cc"));
const tests = chosen(positionals.join(",") || known.join(","), known, "test");
const runner = values.runner?.split(" ") ?? [];

/** Objects of the pool, of all kernels and of the tests, by name; those that do not compile are left out. */
async function compile(isa, kind) {
  const folder = path.join(build, `${isa}-${kind}`);
  mkdirSync(folder, { recursive: true });
  const kernels = readdirSync(path.join(native, "kernels")).filter((file) => file.endsWith(".cc"));
  const sources = ["pool.cc", ...kernels.map((file) => `kernels/${file}`), ...tests.map((file) => `tests/${file}`)];
  const flags = [...compileFlags(compiler), `-I${native}`, `-DDIFFMAMBA_ISA=${isa}`, ...sets[isa], ...sanitizers[kind]];
  const objects = new Map();
  const queue = [...sources];
  const work = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      const name = path.basename(source);
      const object = path.join(folder, `${name}.o`);
      const what = `${source}, ${isa}, ${kind}`;
      const done = run(compiler.command, [...flags, "-c", path.join(native, source), "-o", object], what);
      await done.then(() => objects.set(name, object), fail);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  return objects;
}

let failed = 0;
function fail(error) {
  console.error(error.message);
  failed++;
}

rmSync(build, { recursive: true, force: true });
for (const isa of isas) {
  for (const kind of kinds) {
    const started = performance.now();
    const objects = await compile(isa, kind);
    const shared = [...objects].filter(([name]) => !known.includes(name)).map(([, object]) => object);
    for (const test of tests.filter((name) => objects.has(name))) {
      const what = `${test}, ${isa}, ${kind === "none" ? "plain" : `${kind} sanitizer`}`;
      const program = path.join(build, `${isa}-${kind}`, path.parse(test).name);
      const link = [...sanitizers[kind], "-pthread", objects.get(test), ...shared, "-o", program];
      const [command, ...args] = [...runner, program, ...(kind === "none" ? [] : ["brief"])];
      await run(compiler.command, link, what)
        .then(() => run(command, args, what))
        .then(() => console.log(`${what}: passed`), fail);
    }
    console.log(`${isa}, ${kind}: ${((performance.now() - started) / 1000).toFixed(0)} s`);
  }
}
process.exit(failed === 0 ? 0 : 1);
