// Compiles native/ into build/diffmamba-cpu.node: every kernel source for this machine's instruction set (for all of them
// with --all, as a release wants it), the addon, and one link. No build system: one compiler, a few calls at a time. Prints one line; exits 0 where there is no compiler, because
// the reference backend then does.
// Usage: node scripts/build-addon.mjs [--all] [--required] [--sanitize=address|thread]

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const native = path.join(root, "native");
const options = process.argv.slice(2);
const required = options.includes("--required");
const sanitize = options.find((option) => option.startsWith("--sanitize="))?.split("=")[1];
const build = path.join(root, sanitize ? `build-${sanitize}` : "build");
const target = path.join(build, "diffmamba-cpu.node");

function giveUp(reason) {
  console.error(`backend-cpu: ${reason}; the reference backend is used instead, which is much slower.`);
  process.exit(required ? 1 : 0);
}

const compiler =
  process.env.CXX || ["g++", "c++", "clang++"].find((name) => spawnSync(name, ["--version"]).status === 0);
if (!compiler) giveUp("no C++ compiler was found (install g++, or set CXX)");

const { include_dir: headers } = createRequire(import.meta.url)("node-api-headers");

/** Instruction sets from the least to the best, with the compiler's flags. */
const known = {
  base: [],
  ...(process.arch === "x64" && {
    avx2: ["-mavx2", "-mfma"],
    avx512: ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
  }),
};

/** The best set that this machine has, by what the compiler says of it. */
function nativeIsa() {
  const { stdout = "" } = spawnSync(compiler, ["-march=native", "-dM", "-E", "-x", "c++", "-"], {
    input: "",
    encoding: "utf8",
  });
  const has = (...names) => names.every((name) => stdout.includes(`#define __${name}__ `));
  if (known.avx512 && has("AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL", "FMA")) return "avx512";
  if (known.avx2 && has("AVX2", "FMA")) return "avx2";
  return "base";
}

const isas = options.includes("--all") ? known : { [nativeIsa()]: known[nativeIsa()] };
const common = [
  "-std=c++17",
  "-O3",
  "-fPIC",
  "-fno-math-errno",
  "-fno-trapping-math",
  "-ffp-contract=fast",
  "-fvisibility=hidden",
  "-Wall",
  "-Wextra",
  "-Wno-psabi",
  "-pthread",
  `-I${native}`,
  `-I${headers}`,
  ...Object.keys(isas).map((isa) => `-DDIFFMAMBA_WITH_${isa.toUpperCase()}`),
  ...(sanitize ? [`-fsanitize=${sanitize}`, "-g", "-fno-omit-frame-pointer"] : []),
];

const kernels = readdirSync(path.join(native, "kernels")).filter((file) => file.endsWith(".cc"));
const jobs = [
  ...["addon.cc", "pool.cc"].map((file) => ({
    source: path.join(native, file),
    object: file.replace(".cc", ".o"),
    flags: [],
  })),
  ...kernels.flatMap((file) =>
    Object.entries(isas).map(([isa, flags]) => ({
      source: path.join(native, "kernels", file),
      object: `${file.replace(".cc", "")}.${isa}.o`,
      flags: [`-DDIFFMAMBA_ISA=${isa}`, ...flags],
    })),
  ),
];

/** All that the result depends on. */
function fingerprint() {
  const hash = createHash("sha256").update(
    JSON.stringify([compiler, common.filter((flag) => !flag.startsWith("-I")), isas]),
  );
  for (const folder of [native, path.join(native, "kernels")]) {
    for (const file of readdirSync(folder).sort()) {
      if (/\.(cc|h)$/.test(file)) hash.update(file).update(readFileSync(path.join(folder, file)));
    }
  }
  return hash.digest("hex");
}

const stamp = path.join(build, "stamp");
const print = fingerprint();
if (existsSync(target) && existsSync(stamp) && readFileSync(stamp, "utf8") === print) process.exit(0);

mkdirSync(build, { recursive: true });
const started = performance.now();

function compile({ source, object, flags }) {
  return new Promise((resolve, reject) => {
    const args = [...common, ...flags, "-c", source, "-o", path.join(build, object)];
    const child = spawn(compiler, args, { stdio: ["ignore", "inherit", "inherit"] });
    child.on("error", reject);
    child.on("exit", (code) =>
      code === 0 ? resolve() : reject(new Error(`${path.relative(root, source)} does not compile`)),
    );
  });
}

async function worker(queue) {
  for (let job = queue.shift(); job !== undefined; job = queue.shift()) await compile(job);
}

try {
  const queue = [...jobs];
  await Promise.all(Array.from({ length: availableParallelism() }, () => worker(queue)));
  const fresh = `${target}.tmp`;
  const link = process.platform === "darwin" ? ["-bundle", "-undefined", "dynamic_lookup"] : ["-shared"];
  const objects = jobs.map(({ object }) => path.join(build, object));
  const libraries = process.platform === "darwin" ? [] : ["-ldl"];
  const extra = sanitize ? [`-fsanitize=${sanitize}`] : [];
  const args = [...link, ...extra, "-pthread", "-o", fresh, ...objects, ...libraries];
  if (spawnSync(compiler, args, { stdio: "inherit" }).status !== 0) throw new Error("the addon does not link");
  renameSync(fresh, target);
  for (const object of objects) rmSync(object);
  writeFileSync(stamp, print);
  console.error(`backend-cpu: built in ${((performance.now() - started) / 1000).toFixed(1)} s with ${compiler}.`);
} catch (error) {
  giveUp(`the native addon could not be built: ${error.message}`);
}
