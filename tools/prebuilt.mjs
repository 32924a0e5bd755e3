// Layer: tools. The native addon as optional packages, one a platform, which the release publishes beside backend-cpu.
// They are not in the workspace, and backend-cpu lists them only while it is packed: a clone has none of them and installs
// from its lockfile all the same.
// `node tools/prebuilt.mjs FOLDER` takes FOLDER/<platform>-<arch>/diffmamba-cpu.node of every platform and publishes all.
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(import.meta.dirname, "..");
const backend = path.join(root, "packages/backend-cpu");
const addonFile = "diffmamba-cpu.node";

/** The platforms with a prebuilt addon, and for whom a registry installs each. */
export const platforms = {
  "linux-x64": { os: ["linux"], cpu: ["x64"], libc: ["glibc"] },
  "linux-arm64": { os: ["linux"], cpu: ["arm64"], libc: ["glibc"] },
  "darwin-arm64": { os: ["darwin"], cpu: ["arm64"] },
  "win32-x64": { os: ["win32"], cpu: ["x64"] },
};

/** The oldest C library of Linux that Node 20 itself runs on. */
export const glibcFloor = [2, 28];

const nameOf = (platform) => `@diffmamba/backend-cpu-${platform}`;

/** The newest version of glibc that a binary asks for, or undefined where it asks for none. */
export function glibcOf(binary) {
  const versions = [...binary.toString("latin1").matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, a, b]) => [+a, +b]);
  return versions.sort(([a, b], [c, d]) => a - c || b - d).at(-1);
}

/** The manifest of backend-cpu as it is published with these platforms: each as an optional dependency of its own version. */
export function withPlatforms(manifest, names) {
  const optionalDependencies = Object.fromEntries(names.map((name) => [nameOf(name), manifest.version]));
  return { ...manifest, optionalDependencies };
}

/**
 * Writes the package of a platform into a folder.
 * @param manifest backend-cpu's, whose version it gets
 * @returns {string} its name
 */
export function writePlatformPackage(platform, addon, manifest, folder) {
  const name = nameOf(platform);
  const { version, license, engines, publishConfig } = manifest;
  const own = {
    name,
    version,
    description: `The native addon of @diffmamba/backend-cpu for ${platform}; installed by it.`,
    license,
    main: addonFile,
    files: [addonFile],
    ...platforms[platform],
    engines,
    publishConfig,
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "package.json"), `${JSON.stringify(own, null, 2)}\n`);
  writeFileSync(path.join(folder, "README.md"), `# ${name}\n\n${own.description}\n`);
  copyFileSync(path.join(root, "LICENSE"), path.join(folder, "LICENSE"));
  copyFileSync(addon, path.join(folder, addonFile));
  return name;
}

/** Throws where an addon is missing, or would not load on the Linux that Node runs on. */
function checkAddons(folder) {
  for (const platform of Object.keys(platforms)) {
    const addon = path.join(folder, platform, addonFile);
    if (!existsSync(addon)) throw new Error(`${addon} is missing: nothing is published without all platforms.`);
    const wanted = platform.startsWith("linux") ? glibcOf(readFileSync(addon)) : undefined;
    if (wanted && (wanted[0] - glibcFloor[0] || wanted[1] - glibcFloor[1]) > 0) {
      throw new Error(`${addon} wants glibc ${wanted.join(".")}; at most ${glibcFloor.join(".")} is allowed.`);
    }
  }
}

/** Runs npm, or npx, with its output shown. */
function run(command, args) {
  execFileSync(command, args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" });
}

function isPublished(name, version) {
  const args = ["view", `${name}@${version}`, "version", "--json"];
  const { status, stdout } = spawnSync("npm", args, { encoding: "utf8", shell: process.platform === "win32" });
  if (status === 0) return stdout.trim() !== "";
  if (JSON.parse(stdout || "{}").error?.code === "E404") return false;
  throw new Error(`the registry does not say whether ${name}@${version} is published:\n${stdout}`);
}

/** Publishes every platform whose version is new, then what changesets finds to be new, backend-cpu with its platforms. */
export function publish(folder) {
  checkAddons(folder);
  const file = path.join(backend, "package.json");
  const original = readFileSync(file, "utf8");
  const manifest = JSON.parse(original);
  const temporary = mkdtempSync(path.join(os.tmpdir(), "diffmamba-prebuilt-"));
  try {
    for (const platform of Object.keys(platforms)) {
      const target = path.join(temporary, platform);
      const name = writePlatformPackage(platform, path.join(folder, platform, addonFile), manifest, target);
      if (!isPublished(name, manifest.version)) run("npm", ["publish", target, "--access", "public"]);
    }
    writeFileSync(file, `${JSON.stringify(withPlatforms(manifest, Object.keys(platforms)), null, 2)}\n`);
    run("npx", ["changeset", "publish"]);
  } finally {
    writeFileSync(file, original);
    rmSync(temporary, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) {
    process.stderr.write("usage: node tools/prebuilt.mjs FOLDER\n");
    process.exitCode = 2;
  } else publish(path.resolve(folder));
}
