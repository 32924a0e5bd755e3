// @diffmamba/backend-cuda: an NVIDIA GPU, through a native addon that opens the driver at run time.

import process from "node:process";
import { BackendError, Device, type DeviceOptions } from "@diffmamba/tensor";
import { buildCommand, type Found, findAddon, readKernels } from "./addon.js";
import { CudaBackend } from "./backend.js";
import type { DeviceProperties } from "./context.js";

export type { CudaBackend } from "./backend.js";
export type { KernelTime } from "./profile.js";
export type { DeviceProperties };

export interface CudaOptions extends DeviceOptions {
  /** The GPU's number, from 0 on, as CUDA_VISIBLE_DEVICES leaves them. */
  readonly device?: number;
  /** Whether f32 matrix products may round their factors to TF32 (10 bits of mantissa), several times as fast. False by default. */
  readonly tf32?: boolean;
  /**
   * False: backward makes norms and convolutions again instead of holding them: less memory, and more time. True by default.
   */
  readonly holdOutputs?: boolean;
  /** False: own kernels for matrix products, also where cuBLASLt is there. */
  readonly blas?: boolean;
}

export type CudaAvailability =
  | {
      readonly available: true;
      readonly devices: readonly DeviceProperties[];
      /** The driver's version of CUDA: "13.0". */
      readonly driver: string;
      /** The addon's file. */
      readonly path: string;
    }
  | { readonly available: false; readonly reason: string; readonly remedy: string };

/** The oldest devices that there are kernels for. */
const OLDEST = 80;

/** Whether the backend works here and, if not, what is missing, and what would make it work. Opens no device. */
export function cudaAvailability(): CudaAvailability {
  const found = findAddon();
  if (found.addon === undefined) return { available: false, reason: found.reason, remedy: found.remedy };
  return availabilityOf(found);
}

/** {@link cudaAvailability} of an addon that was found. */
export function availabilityOf({ addon, path, kernels }: Found): CudaAvailability {
  const missing = (reason: string, remedy: string) => ({ available: false, reason, remedy }) as const;
  const probe = addon.probe();
  if (probe.missing !== undefined) {
    return missing(probe.missing, "install NVIDIA's driver for CUDA 12 or newer on a machine with an NVIDIA GPU");
  }
  const { devices, driver } = probe;
  if (devices.length === 0) return missing("the NVIDIA driver finds no GPU", "check CUDA_VISIBLE_DEVICES");
  if (devices.every(({ computeCapability }) => computeCapability < OLDEST)) {
    const names = devices.map(({ name, computeCapability }) => `${name} (sm_${computeCapability})`);
    return missing(`${names.join(", ")}: older than sm_${OLDEST}`, "use a GPU of the Ampere generation or newer");
  }
  if (kernels === undefined) {
    return missing("its kernels are not built", `install CUDA's toolkit 13 (nvcc) and run ${buildCommand()}`);
  }
  return { available: true, devices, driver: `${Math.floor(driver / 1000)}.${Math.floor((driver % 1000) / 10)}`, path };
}

/**
 * A device on an NVIDIA GPU.
 * @throws BackendError where something is missing, with what that is: addon, driver, GPU or kernels
 * @throws RangeError where there is no GPU of that number
 */
export async function cuda(options: CudaOptions = {}): Promise<Device> {
  const found = findAddon();
  if (found.addon === undefined) throw new BackendError(`cuda: ${found.reason}; ${found.remedy}.`);
  const availability = availabilityOf(found);
  if (!availability.available) throw new BackendError(`cuda: ${availability.reason}; ${availability.remedy}.`);
  const { device: index = 0, tf32 = false, holdOutputs = true, blas = true } = options;
  const properties = availability.devices[index];
  if (properties === undefined) {
    throw new RangeError(`cuda: there is no device ${index}; there are ${availability.devices.length}, from 0 on.`);
  }
  // For tools that look for stray accesses: memory that is not reused is known to them piece by piece.
  const reuse = process.env.DIFFMAMBA_CUDA_POOL !== "off";
  const fuses = process.env.DIFFMAMBA_CUDA_FUSE !== "off";
  const backend = new CudaBackend(found.addon, readKernels(found.kernels as string), properties, {
    index,
    tf32,
    holdOutputs,
    reuse,
    blas,
    fuses,
  });
  return new Device(backend, options);
}
