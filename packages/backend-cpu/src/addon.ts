// Finds the native addon: the platform's prebuilt package, else the one built in this package's folder.
// Knows file names. Knows no kernel.

import module from "node:module";
import { fileURLToPath } from "node:url";

/** The native side, function by function; see native/addon.cc. */
export interface Addon {
  /** @returns an address, 0 where there is no memory */
  allocate(bytes: number): number;
  release(address: number): void;
  write(address: number, bytes: Uint8Array): void;
  read(address: number, bytes: Uint8Array): void;
  /** The array that `run` reads its arguments from; the caller keeps it alive. */
  share(packed: Float64Array): void;
  /** @returns what went wrong, or undefined */
  run(kernel: number, threads: number): string | undefined;
  /** @returns whether so many threads could be started */
  start(threads: number): boolean;
  describe(): { readonly isa: string; readonly kernels: readonly string[] };
}

export type AddonSearch =
  | { readonly addon: Addon; readonly path: string }
  | { readonly addon: undefined; readonly reason: string };

const nodeRequire = module.createRequire(import.meta.url);

/** Where an addon may be, best first. */
function candidates(): string[] {
  const platform = `${process.platform}-${process.arch}`;
  const built = fileURLToPath(new URL("../build/diffmamba-cpu.node", import.meta.url));
  const given = process.env.DIFFMAMBA_CPU_ADDON;
  return given ? [given] : [built, `@diffmamba/backend-cpu-${platform}`];
}

function load(path: string): { addon: Addon } | { missing: boolean; reason: string } {
  try {
    const addon = nodeRequire(path) as Addon;
    if (addon.describe().isa !== "none") return { addon };
    return { missing: false, reason: "it was built for another instruction set than this machine's" };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { missing: code === "MODULE_NOT_FOUND", reason: message.split("\n")[0] };
  }
}

let found: AddonSearch | undefined;

/** Loads the addon once; where there is none, says why and what to do. */
export function findAddon(): AddonSearch {
  if (found !== undefined) return found;
  const failures: string[] = [];
  for (const path of candidates()) {
    const result = load(path);
    if ("addon" in result) {
      found = { addon: result.addon, path };
      return found;
    }
    if (!result.missing) failures.push(`${path}: ${result.reason}`);
  }
  const platform = `${process.platform}-${process.arch}`;
  const reason =
    failures.length > 0
      ? `its native addon does not load: ${failures.join("; ")}`
      : `there is no native addon for ${platform}; with a C++ compiler, scripts/build-addon.mjs of this package makes one`;
  found = { addon: undefined, reason };
  return found;
}
