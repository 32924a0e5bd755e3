// Layer: tools. From a bare clone to an installed and built workspace, with nothing but Node and npm.
// Plain Node without dependencies, because it runs before anything is installed. It writes to stderr only:
// stdout belongs to the command that follows.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

export const root = path.resolve(import.meta.dirname, "..");

const pnpmVersion = "10.34.9";
const nodeFloor = [20, 19];
const lockFile = path.join(root, ".setup-lock");
const stampFile = path.join(root, "node_modules", ".diffmamba-setup");
const lockWaitMs = 10 * 60_000;

/** A failed bootstrap: the message says what failed and what to do, so no stack is shown. */
export class SetupError extends Error {}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

/** Runs a command with its output on stderr; throws {@link SetupError} with `advice` when it does not end with 0. */
function run(command, args, advice) {
  const shown = [path.basename(command), ...args.map((arg) => path.relative(root, arg) || arg)].join(" ");
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", 2, 2],
    // Without a terminal pnpm refuses to replace node_modules unless it is told that nobody can answer.
    env: { ...process.env, CI: "true" },
    shell: process.platform === "win32" && command === "npx",
  });
  if (result.error) throw new SetupError(`could not start \`${shown}\` (${result.error.message}). ${advice}`);
  if (result.signal) throw new SetupError(`\`${shown}\` was ended by ${result.signal}.`);
  if (result.status !== 0) throw new SetupError(`\`${shown}\` ended with exit code ${result.status}. ${advice}`);
}

/** Folders of the workspace that hold a package.json. */
function workspaceFolders() {
  const inside = ["packages", "apps"].flatMap((group) =>
    readdirSync(path.join(root, group), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => path.join(group, entry.name)),
  );
  return [".", "tools", ...inside.sort()].filter((folder) => existsSync(path.join(root, folder, "package.json")));
}

/** A digest of all that decides what an installation holds. */
function installDigest() {
  const hash = createHash("sha256").update(`${process.platform} ${process.arch} pnpm ${pnpmVersion}`);
  const files = ["pnpm-lock.yaml", "pnpm-workspace.yaml"];
  for (const folder of workspaceFolders()) files.push(path.join(folder, "package.json"));
  for (const file of files) hash.update(`\0${file}\0`).update(readFileSync(path.join(root, file)));
  return hash.digest("hex");
}

function installed(digest) {
  return existsSync(stampFile) && readFileSync(stampFile, "utf8") === digest;
}

function install() {
  const digest = installDigest();
  if (installed(digest)) return;
  say(`installing dependencies with pnpm ${pnpmVersion}`);
  run(
    "npx",
    ["-y", `pnpm@${pnpmVersion}`, "install", "--frozen-lockfile", "--reporter=append-only"],
    "The lines above name the cause: a registry that cannot be reached, a full disk, or a package.json that " +
      `pnpm-lock.yaml does not match (then: npx -y pnpm@${pnpmVersion} install --no-frozen-lockfile).`,
  );
  mkdirSync(path.dirname(stampFile), { recursive: true });
  writeFileSync(stampFile, digest);
}

/** Installs the peers of the benchmarks that are kept out of the workspace for their size; without them the benchmarks run too. */
export function installPeers() {
  const folder = path.join("apps", "bench", "peers");
  if (existsSync(path.join(root, folder, "node_modules"))) return;
  say("installing the peers of the benchmarks");
  const flags = [
    "--dir",
    folder,
    "--ignore-workspace",
    "--ignore-scripts",
    "--frozen-lockfile",
    "--reporter=append-only",
  ];
  try {
    run("npx", ["-y", `pnpm@${pnpmVersion}`, "install", ...flags], "Peers that are missing are left out.");
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(error.message);
  }
}

function build() {
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  run(process.execPath, [tsc, "-b"], "The lines above name the files that do not compile.");
  // Both end with 0 where there is no compiler, and say what is used instead.
  const scripts = path.join(root, "packages", "backend-cpu", "scripts");
  run(
    process.execPath,
    [path.join(scripts, "build-addon.mjs")],
    "The lines above say what is wrong with the native addon.",
  );
  run(
    process.execPath,
    [path.join(scripts, "build-wasm.mjs")],
    "The lines above say what is wrong with the WebAssembly build.",
  );
}

/** Whether the process that wrote a lock is known to be gone. */
function isStale(text) {
  const [pid, host] = text.split(" ");
  if (host !== os.hostname()) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return error.code === "ESRCH";
  }
}

function sleep(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Takes away a lock whose owner is gone, but only the one that was read: a newer one is put back. */
function removeStale(text) {
  const aside = `${lockFile}.${process.pid}`;
  try {
    renameSync(lockFile, aside);
  } catch {
    return; // another process was faster
  }
  if (readFileSync(aside, "utf8") === text) rmSync(aside);
  else renameSync(aside, lockFile);
}

/** Runs `work` while no other bootstrap of this folder runs; waits for one, but not for ever. */
function locked(work) {
  const mine = `${process.pid} ${os.hostname()} ${Date.now()}`;
  const deadline = Date.now() + lockWaitMs;
  let told = false;
  for (;;) {
    try {
      writeFileSync(lockFile, mine, { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw new SetupError(`cannot write ${lockFile}: ${error.message}`);
    }
    let text = "";
    try {
      text = readFileSync(lockFile, "utf8");
    } catch {
      continue; // released in between
    }
    if (text !== "" && isStale(text)) {
      removeStale(text);
      continue;
    }
    if (Date.now() > deadline) {
      throw new SetupError(
        `another setup (process ${text.split(" ")[0]}) has held ${lockFile} for ${lockWaitMs / 60_000} minutes. ` +
          "If none is running, delete that file.",
      );
    }
    if (!told) say(`waiting for another setup (process ${text.split(" ")[0]})`);
    told = true;
    sleep(100);
  }
  try {
    work();
  } finally {
    rmSync(lockFile, { force: true });
  }
}

/**
 * Installs the workspace when the lockfile or a package.json has changed since the last time, and builds it: TypeScript,
 * and the kernels of the CPU backend where there are compilers for them: the native addon and the WebAssembly modules.
 * Throws {@link SetupError}; prints to stderr only.
 */
export function setup() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < nodeFloor[0] || (major === nodeFloor[0] && minor < nodeFloor[1])) {
    throw new SetupError(`Node ${nodeFloor.join(".")} or newer is needed; this is ${process.versions.node}.`);
  }
  locked(() => {
    install();
    build();
  });
}
