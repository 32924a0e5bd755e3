// Layer: CUDA backend. Finds the native addon and the file of kernels: those built in this package's folder, else those of the
// platform's prebuilt package. Says what is missing where something is. Knows file names and versions. Launches nothing.

import { existsSync, readFileSync } from "node:fs";
import module from "node:module";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { BackendError } from "@diffmamba/tensor";
import type { DeviceProperties } from "./context.js";

/** What the driver says. */
export type Probe =
  | { readonly missing: string }
  | { readonly missing?: undefined; readonly driver: number; readonly devices: readonly DeviceProperties[] };

/** The native side, function by function; see native/addon.cc. A device is a number; an address is one too. */
export interface Addon {
  readonly interfaceVersion: number;
  probe(): Probe;
  open(index: number, kernels: Uint8Array): number;
  close(device: number): void;
  /** The array that `launch` and `multiply` read; the caller keeps it alive. */
  share(array: Uint8Array): void;
  /** @returns its number, or -1 where there is no such kernel */
  kernel(device: number, name: string): number;
  launch(device: number): void;
  /** @returns whether the library takes such a product */
  multiply(device: number): boolean;
  blas(device: number): { readonly file: string; readonly missing?: undefined } | { readonly missing: string };
  /** @returns an address, 0 where there is no memory */
  allocate(device: number, bytes: number): number;
  release(device: number, address: number): void;
  clear(device: number, address: number, bytes: number): void;
  write(device: number, address: number, bytes: Uint8Array): void;
  /** Waits on the spot. */
  readNow(device: number, address: number, bytes: Uint8Array): void;
  /** Enqueues a copy to the host. @returns its number, for `finishRead`: it does not wait for what is enqueued in between */
  startRead(device: number, address: number, length: number): number;
  /** @returns a promise where the bytes, as many as were asked for, are not there at once */
  finishRead(device: number, read: number, bytes: Uint8Array): Promise<void> | undefined;
  startTiming(device: number): void;
  /** @returns milliseconds of each launch and product since `startTiming` */
  stopTiming(device: number): readonly number[];
  beginCapture(device: number): void;
  endCapture(device: number): { readonly graph: number; readonly nodes: number };
  replay(device: number, graph: number): void;
  destroyGraph(device: number, graph: number): void;
}

/** How both sides call each other; goes up with every change of that, here and in native/addon.cc. */
const INTERFACE_VERSION = 3;

export interface Found {
  readonly addon: Addon;
  readonly path: string;
  /** The file of kernels, or undefined where there is none beside the addon. */
  readonly kernels: string | undefined;
}

export type AddonSearch = Found | { readonly addon: undefined; readonly reason: string; readonly remedy: string };

const nodeRequire = module.createRequire(import.meta.url);
const platform = `${process.platform}-${process.arch}`;
const prebuilt = `@diffmamba/backend-cuda-${platform}`;
const built = fileURLToPath(new URL("../build/diffmamba-cuda.node", import.meta.url));
const script = fileURLToPath(new URL("../scripts/build-addon.mjs", import.meta.url));

/** What to do where something is not built. */
export function buildCommand(): string {
  return `\`node ${path.relative("", script)}\``;
}

/** What is wrong with the prebuilt package, if anything: its addon must be called as this version calls it. */
function versionFault(): string | undefined {
  const version = (name: string) => (nodeRequire(name) as { readonly version: string }).version;
  const [wanted, found] = [version("../package.json"), version(`${prebuilt}/package.json`)];
  return wanted === found ? undefined : `its version is ${found}, and this package's ${wanted}`;
}

type Attempt = Found | { readonly addon: undefined; readonly missing: boolean; readonly reason: string };

function attempt(file: string): Attempt {
  const failed = (reason: string, missing = false): Attempt => ({ addon: undefined, missing, reason });
  try {
    const found = nodeRequire.resolve(file);
    const wrong = file === prebuilt ? versionFault() : undefined;
    if (wrong !== undefined) return failed(wrong);
    const addon = nodeRequire(found) as Addon;
    if (addon.interfaceVersion !== INTERFACE_VERSION)
      return failed("it was built from another version of this package");
    const kernels = path.join(path.dirname(found), "diffmamba-cuda.fatbins");
    return { addon, path: found, kernels: existsSync(kernels) ? kernels : undefined };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return failed(message.split("\n")[0], code === "MODULE_NOT_FOUND");
  }
}

let searched: AddonSearch | undefined;

/**
 * Loads the addon once; where there is none, says why and what to do. The environment variable DIFFMAMBA_CUDA_ADDON names
 * the only file to look at; its kernels lie beside it.
 */
export function findAddon(): AddonSearch {
  searched ??= search(process.env.DIFFMAMBA_CUDA_ADDON);
  return searched;
}

/** {@link findAddon} without its memory. `given` is the only file to look at. */
export function search(given: string | undefined): AddonSearch {
  const failures: string[] = [];
  for (const file of given ? [path.resolve(given)] : [built, prebuilt]) {
    const result = attempt(file);
    if (result.addon !== undefined) return result;
    if (!result.missing || given) failures.push(`${file}: ${result.reason}`);
  }
  const reason =
    failures.length > 0
      ? `its native addon does not load: ${failures.join("; ")}`
      : `there is no native addon for ${platform}`;
  const remedy = given
    ? "correct or unset DIFFMAMBA_CUDA_ADDON"
    : `install a C++ compiler (g++ or clang++) and run ${buildCommand()}`;
  return { addon: undefined, reason, remedy };
}

/** The kernels' file as bytes. */
export function readKernels(file: string): Uint8Array {
  return readFileSync(file);
}

/** An error of the native side, told as the backend's. */
export function backendError(error: unknown): BackendError {
  if (error instanceof BackendError) return error;
  return new BackendError(`cuda: ${(error as Error).message}.`, { cause: error });
}

/** A call of the native side. @throws BackendError where it fails */
export function callNative<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw backendError(error);
  }
}
