// @diffmamba/backend-cpu: the embedded default. Native kernels (C++ with vector extensions) on a pool of threads.

import { totalmem } from "node:os";
import process from "node:process";
import { BackendError, Device, type DeviceOptions } from "@diffmamba/tensor";
import { findAddon } from "./addon.js";
import { CpuBackend } from "./backend.js";
import { defaultThreads } from "./threads.js";

export { defaultThreads };

export interface CpuOptions extends DeviceOptions {
  /** Threads that share a kernel's work; `defaultThreads()` by default. The results do not depend on it. */
  readonly threads?: number;
  /** Bytes that may be held at once; the memory of the machine, or of the container, by default. */
  readonly memoryLimit?: number;
}

/** Whether the backend works here and, if not, why, and what would make it. */
export function cpuAvailability():
  | { readonly available: true; readonly device: string; readonly path: string }
  | { readonly available: false; readonly reason: string; readonly remedy: string } {
  const search = findAddon();
  if (search.addon === undefined) return { available: false, reason: search.reason, remedy: search.remedy };
  return { available: true, device: search.addon.describe().isa, path: search.path };
}

/** Bytes of the machine, or what a container may use of them: the system promises more, and ends who makes use of it. */
function machineMemory(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}

/**
 * A device on the CPU backend.
 * @throws BackendError where there is no native addon for this machine, or the threads cannot be started
 * @throws RangeError where `threads` or `memoryLimit` is none
 */
export async function cpu(options: CpuOptions = {}): Promise<Device> {
  const search = findAddon();
  if (search.addon === undefined) throw new BackendError(`cpu: ${search.reason}; ${search.remedy}.`);
  const { threads = defaultThreads(), memoryLimit = machineMemory() } = options;
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new RangeError(`cpu: ${threads} threads; it must be a whole number from 1 to 1024.`);
  }
  if (!(memoryLimit >= 0)) throw new RangeError(`cpu: a memoryLimit of ${memoryLimit}; it must be a number of bytes.`);
  return new Device(new CpuBackend(search.addon, { threads, memoryLimit }), options);
}
