// @diffmamba/backend-cpu: the embedded default. Native kernels (C++ with vector extensions) on a pool of threads.

import { availableParallelism, totalmem } from "node:os";
import { BackendError, Device, type DeviceOptions } from "@diffmamba/tensor";
import { findAddon } from "./addon.js";
import { CpuBackend } from "./backend.js";

export interface CpuOptions extends DeviceOptions {
  /** Threads that share a kernel's work; as many as there are cores by default. The results do not depend on it. */
  readonly threads?: number;
  /** Bytes that may be held at once; the machine's memory by default. */
  readonly memoryLimit?: number;
}

/** Whether the backend works here and, if not, why. */
export function cpuAvailability():
  | { readonly available: true; readonly device: string; readonly path: string }
  | { readonly available: false; readonly reason: string } {
  const search = findAddon();
  if (search.addon === undefined) return { available: false, reason: search.reason };
  return { available: true, device: search.addon.describe().isa, path: search.path };
}

/**
 * A device on the CPU backend.
 * @throws BackendError where there is no native addon for this machine, or the threads cannot be started
 */
export async function cpu(options: CpuOptions = {}): Promise<Device> {
  const search = findAddon();
  if (search.addon === undefined) throw new BackendError(`cpu: ${search.reason}.`);
  const { threads = availableParallelism(), memoryLimit = totalmem() } = options;
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new RangeError(`cpu: ${threads} threads; it must be a whole number from 1 to 1024.`);
  }
  return new Device(new CpuBackend(search.addon, { threads, memoryLimit }), options);
}
