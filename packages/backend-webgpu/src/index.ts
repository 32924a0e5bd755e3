// @diffmamba/backend-webgpu: the models in a browser tab. WGSL kernels on `navigator.gpu`; ./node has the same on Dawn.

import { BackendError, Device, type DeviceOptions } from "@diffmamba/tensor";
import { openBackend, probe } from "./adapter.js";
import { checkUnits } from "./kernels/matmulUnitsCheck.js";
import { browserTables, recallMatmul, type TableStore } from "./tables.js";

export type { WebGpuBackend } from "./backend.js";
export { type MatmulTuneOptions, tuneMatmul } from "./kernels/matmul.js";
export type { MatmulTable } from "./kernels/matmulTuning.js";
export { browserTables, type TableStore } from "./tables.js";

export interface WebGpuOptions extends DeviceOptions {
  /** Where adapters come from; `navigator.gpu` by default. */
  readonly gpu?: GPU;
  /** Which of several adapters to prefer; "high-performance" by default. */
  readonly powerPreference?: GPUPowerPreference;
  /**
   * Hold outputs of norms and convolutions that backward could make again: a training step takes some hundredths less time, and a sixth
   * more memory. False by default, in Node true.
   */
  readonly holdOutputs?: boolean;
  /**
   * Whether matrix products run on the GPU's matrix units, if it has some and f16 in shaders. By default those of f16 do, and those of f32
   * where that is faster: as sums of products of halves, which keep about 22 bits of each element. True: those of f32 on any GPU that
   * can; false: none, and f32 products are multiply-adds of f32.
   */
  readonly matrixUnits?: boolean;
  /**
   * How the matrix product's tiles are chosen: "search" measures them once on each adapter, which takes some seconds, and remembers;
   * "remembered" only looks for what was measured before; "assumed" does neither. No result depends on it, not in one bit.
   */
  readonly tiles?: "search" | "remembered" | "assumed";
  /** Where what was measured is remembered. In a browser by default its IndexedDB, in Node a file in the user's cache. */
  readonly tables?: TableStore;
}

/** Whether the backend works somewhere and, if not, why, and what would make it. */
export type WebGpuAvailability =
  | { readonly available: true; readonly device: string }
  | { readonly available: false; readonly reason: string; readonly remedy: string };

const noGpu = {
  reason: "this browser has no WebGPU",
  remedy: "use a current Chrome, Edge, Firefox or Safari, over https or on localhost",
};

const noAdapter = {
  reason: "this browser gives no WebGPU adapter",
  remedy: "look at chrome://gpu (or about:support), and enable hardware acceleration",
};

function browserGpu(): GPU | undefined {
  return (globalThis.navigator as Navigator | undefined)?.gpu;
}

export async function webgpuAvailability({
  gpu = browserGpu(),
  powerPreference,
}: WebGpuOptions = {}): Promise<WebGpuAvailability> {
  if (gpu === undefined) return { available: false, ...noGpu };
  const found = await probe(gpu, powerPreference);
  if (found === undefined) return { available: false, ...noAdapter };
  return found;
}

/**
 * A device on the WebGPU backend.
 * @throws BackendError where there is no WebGPU, no adapter, or one that lacks what the kernels need
 */
export async function webgpu(options: WebGpuOptions = {}): Promise<Device> {
  const { gpu = browserGpu(), powerPreference, tiles = "remembered", tables = browserTables } = options;
  if (gpu === undefined) throw new BackendError(`webgpu: ${noGpu.reason}; ${noGpu.remedy}.`);
  const backend = await openBackend(gpu, powerPreference, options);
  if (backend === undefined) throw new BackendError(`webgpu: ${noAdapter.reason}; ${noAdapter.remedy}.`);
  const device = new Device(backend, options);
  await checkUnits(device);
  // There is nothing to choose on a driver that computes on the processor.
  if (tiles !== "assumed" && !backend.context.limits.fallback) await recallMatmul(device, tables, tiles === "search");
  return device;
}
