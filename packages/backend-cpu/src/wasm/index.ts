// @diffmamba/backend-cpu/wasm: the CPU backend's kernels as WebAssembly, for browsers without WebGPU: vectors of four
// floats, threads where a page may share memory. Runs in Node too, where the native addon is faster.

import { BackendError, Device, type DeviceOptions } from "@diffmamba/tensor";
import { kernelNames } from "../pack.js";
import { WasmAddon } from "./addon.js";
import { WasmBackend } from "./backend.js";
import {
  chooseFile,
  defaultThreads,
  hasRelaxedSimd,
  hasSimd,
  hasThreads,
  maySleep,
  nodeModule,
  type WasmFile,
} from "./features.js";
import { startHelpers } from "./helpers.js";
import { createMemory, instantiate, isThreaded } from "./instance.js";

export type { WasmFile } from "./features.js";

export interface WasmOptions extends DeviceOptions {
  /**
   * Threads that share a kernel's work, the caller included. By default as many as the machine runs at once, up to 16.
   * Always 1 where memory cannot be shared: on a page that is not cross-origin isolated. The results do not depend on it.
   */
  readonly threads?: number;
  /** Bytes of tensors that may be held at once; by default all that 4 GiB of memory have room for. */
  readonly memoryLimit?: number;
  /** The module's file, where it is not beside this package: the one that `wasmAvailability` names, or another of the four. */
  readonly url?: string | URL;
  /** The module's file itself, in place of `url`. */
  readonly bytes?: BufferSource;
  /** The script of the workers (`worker.js` of this entry), where a bundler does not see to it. */
  readonly workerUrl?: string | URL;
}

/**
 * Whether the backend works here, as far as the engine is concerned, and how: its device in words, the threads it would
 * have and the module's file for that. If not, why, and what would help.
 */
export function wasmAvailability(
  options: Pick<WasmOptions, "threads"> = {},
):
  | { readonly available: true; readonly device: string; readonly threads: number; readonly file: WasmFile }
  | { readonly available: false; readonly reason: string; readonly remedy: string } {
  if (!hasSimd()) {
    const remedy = "use a browser of 2023 or later, or the reference backend";
    return { available: false, reason: "this engine has no WebAssembly with SIMD", remedy };
  }
  const threads = hasThreads() ? (options.threads ?? defaultThreads()) : 1;
  const simd = hasRelaxedSimd() ? "relaxed SIMD" : "SIMD";
  const device = `WASM, ${simd}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  return { available: true, device, threads, file: chooseFile(threads) };
}

/** Where a file of the module is. Each in one piece, as bundlers want to read it. */
const addresses: Readonly<Record<WasmFile, () => URL>> = {
  "kernels-simd.wasm": () => new URL("../../wasm/kernels-simd.wasm", import.meta.url),
  "kernels-simd-threads.wasm": () => new URL("../../wasm/kernels-simd-threads.wasm", import.meta.url),
  "kernels-relaxed.wasm": () => new URL("../../wasm/kernels-relaxed.wasm", import.meta.url),
  "kernels-relaxed-threads.wasm": () => new URL("../../wasm/kernels-relaxed-threads.wasm", import.meta.url),
};

async function load(address: URL): Promise<BufferSource> {
  if (address.protocol === "file:") {
    const files = nodeModule("node:fs/promises");
    if (files !== undefined) return new Uint8Array(await files.readFile(address));
  }
  const response = await fetch(address);
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return response.arrayBuffer();
}

async function compile(given: BufferSource | undefined, address: URL): Promise<WebAssembly.Module> {
  const what = given === undefined ? address.href : "what was given as bytes";
  let bytes = given;
  try {
    bytes ??= await load(address);
  } catch (error) {
    const remedy = "build it with scripts/build-wasm.mjs of @diffmamba/backend-cpu, or say where it is with `url`";
    throw new BackendError(`cpu: ${what} could not be loaded (${(error as Error).message}); ${remedy}.`);
  }
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    throw new BackendError(`cpu: ${what} is no module that this engine takes (${(error as Error).message}).`);
  }
}

/**
 * A device on the CPU backend's WebAssembly build.
 * @throws BackendError where the engine lacks SIMD, the module cannot be loaded, or memory or workers cannot be had
 * @throws RangeError where `threads` or `memoryLimit` is none
 */
export async function wasmCpu(options: WasmOptions = {}): Promise<Device> {
  const { threads: wanted, memoryLimit = Number.POSITIVE_INFINITY } = options;
  if (wanted !== undefined && (!Number.isInteger(wanted) || wanted < 1 || wanted > 1024)) {
    throw new RangeError(`cpu: ${wanted} threads; it must be a whole number from 1 to 1024.`);
  }
  if (!(memoryLimit >= 0)) throw new RangeError(`cpu: a memoryLimit of ${memoryLimit}; it must be a number of bytes.`);
  const found = wasmAvailability(options);
  if (!found.available) throw new BackendError(`cpu: ${found.reason}; ${found.remedy}.`);

  const address = options.url === undefined ? addresses[found.file]() : new URL(options.url, baseUrl());
  const module = await compile(options.bytes, address);
  const shared = isThreaded(module);
  const threads = shared ? found.threads : 1;
  const memory = newMemory(shared);
  const exports = await instantiate(module, memory);
  exports.caller(maySleep() ? 1 : 0);
  const addon = new WasmAddon(exports, memory, threads);
  if (addon.describe().kernels.join() !== kernelNames.join()) {
    throw new BackendError(
      `cpu: ${options.bytes ? "the module" : address.href} was built from another version of this package.`,
    );
  }
  const end = await startHelpers(threads - 1, exports, module, memory, options.workerUrl);
  return new Device(new WasmBackend(addon, { threads, memoryLimit }, end), options);
}

/** What a relative `url` is relative to: the page, or where there is none this package. */
const baseUrl = () => (globalThis as { location?: { href: string } }).location?.href ?? import.meta.url;

function newMemory(shared: boolean): WebAssembly.Memory {
  try {
    return createMemory(shared);
  } catch (error) {
    throw new BackendError(`cpu: memory could not be had from the engine (${(error as Error).message}).`);
  }
}
