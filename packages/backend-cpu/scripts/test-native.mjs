// Builds native/tests and runs them: for each instruction set that this machine has, plain and with sanitizers. No test
// needs Node. Prints one line for each run; exits 1 where one fails.
// Usage: node scripts/test-native.mjs [--isa=base,avx2,avx512] [--sanitize=none,address,thread] [TEST ...]

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const root = path.resolve(import.meta.dirname, "..");
const native = path.join(root, "native");
const build = path.join(root, "build-tests");

const isas = {
  base: [],
  avx2: ["-mavx2", "-mfma"],
  avx512: ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
};

/** What the machine says it has; only Linux on x64 says it in a file. */
function available() {
  if (process.arch !== "x64" || !existsSync("/proc/cpuinfo")) return ["base"];
  const flags =
    readFileSync("/proc/cpuinfo", "utf8")
      .match(/^flags.*$/m)?.[0]
      .split(" ") ?? [];
  const has = (isa) => isas[isa].every((flag) => flags.includes(flag.slice(2)));
  return Object.keys(isas).filter(has);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    isa: { type: "string", default: available().join(",") },
    sanitize: { type: "string", default: "none,address,thread" },
  },
});

const compiler =
  process.env.CXX || ["g++", "c++", "clang++"].find((name) => spawnSync(name, ["--version"]).status === 0);
if (!compiler) throw new Error("no C++ compiler was found (install g++, or set CXX)");

// As build-addon.mjs compiles kernels, but for -O2 and line numbers.
const common = ["-std=c++17", "-O2", "-g", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"];
const warnings = ["-Wall", "-Wextra", "-Wno-psabi", "-pthread"];

function run(command, args, what) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit" });
    child.on("error", reject);
    child.on("exit", (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`${what}: ${signal ?? `exit status ${code}`}`)),
    );
  });
}

function flagsOf(isa, sanitizer) {
  const flags = [...common, ...warnings, `-I${native}`, `-DDIFFMAMBA_ISA=${isa}`, ...isas[isa]];
  return sanitizer === "none" ? flags : [...flags, `-fsanitize=${sanitizer}`];
}

/** All kernels and the pool as one archive: the linker leaves out those that a test does not call. */
async function archive(isa, sanitizer) {
  const folder = path.join(build, `${isa}-${sanitizer}`);
  mkdirSync(folder, { recursive: true });
  const kernels = readdirSync(path.join(native, "kernels")).filter((file) => file.endsWith(".cc"));
  const queue = [...kernels.map((file) => path.join("kernels", file)), "pool.cc"];
  const objects = queue.map((file) => path.join(folder, `${path.basename(file)}.o`));
  const work = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const object = path.join(folder, `${path.basename(file)}.o`);
      await run(compiler, [...flagsOf(isa, sanitizer), "-c", path.join(native, file), "-o", object], file);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  const file = path.join(folder, "kernels.a");
  await run("ar", ["rcs", file, ...objects], file);
  return file;
}

rmSync(build, { recursive: true, force: true });
const all = readdirSync(path.join(native, "tests")).filter((file) => file.endsWith("_test.cc"));
const tests = positionals.length > 0 ? positionals : all.map((file) => file.replace(/\.cc$/, ""));
let failed = 0;
for (const isa of values.isa.split(",")) {
  for (const sanitizer of values.sanitize.split(",")) {
    const kernels = await archive(isa, sanitizer);
    for (const test of tests) {
      const what = `${test}, ${isa}, ${sanitizer === "none" ? "plain" : `${sanitizer} sanitizer`}`;
      const program = path.join(path.dirname(kernels), test);
      const source = path.join(native, "tests", `${test}.cc`);
      try {
        await run(compiler, [...flagsOf(isa, sanitizer), source, kernels, "-o", program], what);
        await run(program, [], what);
        console.log(`${what}: passed`);
      } catch (error) {
        console.error(error.message);
        failed++;
      }
    }
  }
}
process.exit(failed === 0 ? 0 : 1);
