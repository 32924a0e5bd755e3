// Finds the native addon: the one built in this package's folder, else the platform's prebuilt package.
// Knows file names, and which addon is one of this package's version. Calls no kernel.

import module from "node:module";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { fileFault } from "./addonFile.js";
import { kernelNames } from "./pack.js";

/** The native side, function by function; see native/addon.cc. */
export interface Addon {
  /** @returns an address, 0 where there is no memory */
  allocate(bytes: number): number;
  release(address: number): void;
  write(address: number, bytes: Uint8Array): void;
  read(address: number, bytes: Uint8Array): void;
  /** The array that `run` reads its arguments from; the caller keeps it alive. */
  share(packed: Float64Array): void;
  /** Runs a kernel on the first `count` numbers of that array. @returns what went wrong, or undefined */
  run(kernel: number, threads: number, count: number): string | undefined;
  /**
   * Runs kernels one after another, which are so many numbers of that array: of each its number, how many arguments it has,
   * and these. @returns the kernel's name and what went wrong, or undefined
   */
  runAll(count: number, threads: number): string | undefined;
  /** @returns whether so many threads could be started */
  start(threads: number): boolean;
  describe(): { readonly isa: string; readonly kernels: readonly string[] };
}

export type AddonSearch =
  | { readonly addon: Addon; readonly path: string }
  | { readonly addon: undefined; readonly reason: string; readonly remedy: string };

const nodeRequire = module.createRequire(import.meta.url);
const platform = `${process.platform}-${process.arch}`;
const prebuilt = `@diffmamba/backend-cpu-${platform}`;
const built = fileURLToPath(new URL("../build/diffmamba-cpu.node", import.meta.url));
const script = fileURLToPath(new URL("../scripts/build-addon.mjs", import.meta.url));

/** What is wrong with an addon that loads, if anything. */
function fault(addon: Addon): string | undefined {
  const { isa, kernels } = addon.describe();
  if (isa === "none") return "it was built for another instruction set than this machine's";
  const same = kernels.length === kernelNames.length && kernelNames.every((name, i) => kernels[i] === name);
  return same ? undefined : "it was built from another version of this package";
}

/** What is wrong with the prebuilt package, if anything: its addon must be called as this version calls it. */
function versionFault(): string | undefined {
  const version = (name: string) => (nodeRequire(name) as { readonly version: string }).version;
  const [wanted, found] = [version("../package.json"), version(`${prebuilt}/package.json`)];
  return wanted === found ? undefined : `its version is ${found}, and this package's ${wanted}`;
}

type Attempt =
  | { readonly addon: Addon; readonly path: string }
  | { readonly missing: boolean; readonly reason: string };

function attempt(file: string): Attempt {
  try {
    const found = nodeRequire.resolve(file);
    const wrong = (file === prebuilt ? versionFault() : undefined) ?? fileFault(found);
    if (wrong !== undefined) return { missing: false, reason: wrong };
    const addon = nodeRequire(found) as Addon;
    const reason = fault(addon);
    return reason === undefined ? { addon, path: found } : { missing: false, reason };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { missing: code === "MODULE_NOT_FOUND", reason: message.split("\n")[0] };
  }
}

let found: AddonSearch | undefined;

/**
 * Loads the addon once; where there is none, says why and what to do. The environment variable DIFFMAMBA_CPU_ADDON names
 * the only file to look at.
 */
export function findAddon(): AddonSearch {
  found ??= search();
  return found;
}

function search(): AddonSearch {
  const given = process.env.DIFFMAMBA_CPU_ADDON;
  const failures: string[] = [];
  for (const file of given ? [path.resolve(given)] : [built, prebuilt]) {
    const result = attempt(file);
    if ("addon" in result) return result;
    if (!result.missing || given) failures.push(`${file}: ${result.reason}`);
  }
  const reason =
    failures.length > 0
      ? `its native addon does not load: ${failures.join("; ")}`
      : `there is no native addon for ${platform}`;
  const remedy = given
    ? "correct or unset DIFFMAMBA_CPU_ADDON"
    : `install a C++ compiler (g++ or clang++) and run \`node ${path.relative("", script)}\``;
  return { addon: undefined, reason, remedy };
}
