// Layer: tools. The native addons as optional packages, one a backend and platform, which the release publishes beside the backends.
// They are not in the workspace, and a backend lists them only while it is packed: a clone has none of them and installs
// from its lockfile all the same.
// `node tools/prebuilt.mjs FOLDER` takes FOLDER/<platform>-<arch>/<addon> of every backend and platform, and FOLDER/kernels, the
// kernels of CUDA for all of them, and publishes all.
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(import.meta.dirname, "..");

/** The platforms with prebuilt addons, and for whom a registry installs each. */
export const platforms = {
  "linux-x64": { os: ["linux"], cpu: ["x64"], libc: ["glibc"] },
  "linux-arm64": { os: ["linux"], cpu: ["arm64"], libc: ["glibc"] },
  "darwin-arm64": { os: ["darwin"], cpu: ["arm64"] },
  "win32-x64": { os: ["win32"], cpu: ["x64"] },
};

/** The backends with addons: where they exist, and what comes along that is the same for all platforms. */
export const backends = [
  { folder: "backend-cpu", addon: "diffmamba-cpu.node", platforms: Object.keys(platforms), shared: [] },
  {
    folder: "backend-cuda",
    addon: "diffmamba-cuda.node",
    platforms: ["linux-x64", "linux-arm64", "win32-x64"],
    shared: ["kernels/diffmamba-cuda.fatbins"],
  },
];

/** The oldest C library of Linux that Node 20 itself runs on. */
export const glibcFloor = [2, 28];

/** Bytes that a packed package may have: registries refuse larger ones, or serve them badly. */
const MOST_BYTES = 50e6;

const manifestFile = ({ folder }) => path.join(root, "packages", folder, "package.json");

/** The newest version of glibc that a binary asks for, or undefined where it asks for none. */
export function glibcOf(binary) {
  const versions = [...binary.toString("latin1").matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, a, b]) => [+a, +b]);
  return versions.sort(([a, b], [c, d]) => a - c || b - d).at(-1);
}

/** The manifest of a backend as it is published with these platforms: each as an optional dependency of its own version. */
export function withPlatforms(manifest, names) {
  const optionalDependencies = Object.fromEntries(names.map((name) => [`${manifest.name}-${name}`, manifest.version]));
  return { ...manifest, optionalDependencies };
}

/**
 * Writes the package of a platform into a folder.
 * @param files the addon, and what comes along
 * @param manifest the backend's, whose version it gets
 * @returns {string} its name
 */
export function writePlatformPackage(platform, files, manifest, folder) {
  const name = `${manifest.name}-${platform}`;
  const { version, license, engines, publishConfig } = manifest;
  const names = files.map((file) => path.basename(file));
  const own = {
    name,
    version,
    description: `The native addon of ${manifest.name} for ${platform}; installed by it.`,
    license,
    main: names[0],
    files: names,
    ...platforms[platform],
    engines,
    publishConfig,
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "package.json"), `${JSON.stringify(own, null, 2)}\n`);
  writeFileSync(path.join(folder, "README.md"), `# ${name}\n\n${own.description}\n`);
  copyFileSync(path.join(root, "LICENSE"), path.join(folder, "LICENSE"));
  for (const [i, file] of files.entries()) copyFileSync(file, path.join(folder, names[i]));
  return name;
}

/** What the package of a platform holds: the addon, and what is the same for all. */
const filesOf = ({ addon, shared }, platform, folder) =>
  [path.join(platform, addon), ...shared].map((file) => path.join(folder, file));

/** Throws where something is missing, too large, or would not load on the Linux that Node runs on. */
function checkAddons(folder) {
  for (const backend of backends) {
    for (const platform of backend.platforms) {
      const files = filesOf(backend, platform, folder);
      const missing = files.find((file) => !existsSync(file));
      if (missing) throw new Error(`${missing} is missing: nothing is published without all platforms.`);
      const bytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
      if (bytes > MOST_BYTES)
        throw new Error(`${files.join(", ")}: ${bytes} bytes; at most ${MOST_BYTES} are allowed.`);
      const wanted = platform.startsWith("linux") ? glibcOf(readFileSync(files[0])) : undefined;
      if (wanted && (wanted[0] - glibcFloor[0] || wanted[1] - glibcFloor[1]) > 0) {
        throw new Error(`${files[0]} wants glibc ${wanted.join(".")}; at most ${glibcFloor.join(".")} is allowed.`);
      }
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

/** Publishes every platform whose version is new, then what changesets finds to be new, the backends with their platforms. */
export function publish(folder) {
  checkAddons(folder);
  const originals = backends.map((backend) => readFileSync(manifestFile(backend), "utf8"));
  const temporary = mkdtempSync(path.join(os.tmpdir(), "diffmamba-prebuilt-"));
  try {
    for (const [i, backend] of backends.entries()) {
      const manifest = JSON.parse(originals[i]);
      for (const platform of backend.platforms) {
        const target = path.join(temporary, backend.folder, platform);
        const name = writePlatformPackage(platform, filesOf(backend, platform, folder), manifest, target);
        if (!isPublished(name, manifest.version)) run("npm", ["publish", target, "--access", "public"]);
      }
      const listed = withPlatforms(manifest, backend.platforms);
      writeFileSync(manifestFile(backend), `${JSON.stringify(listed, null, 2)}\n`);
    }
    run("npx", ["changeset", "publish"]);
  } finally {
    for (const [i, backend] of backends.entries()) writeFileSync(manifestFile(backend), originals[i]);
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
