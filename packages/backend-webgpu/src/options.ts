// Layer: the WebGPU backend. What a backend is told of its device, and what kernels and shaders make of it. Knows limits and WGSL's
// directives. Opens nothing.

import type { KernelLimits } from "./context.js";

export interface WebGpuBackendOptions {
  /** The device in words. */
  readonly name: string;
  readonly subgroups: { readonly min: number; readonly max: number } | undefined;
  /** As {@link KernelLimits}; false by default. */
  readonly subgroupMatrices?: boolean;
  /** As {@link KernelLimits}; false by default. */
  readonly splitProducts?: boolean;
  /** It computes on the processor. */
  readonly fallback: boolean;
  /** As `holdsOutputs` of the Backend interface; false by default. */
  readonly holdOutputs?: boolean | undefined;
  /** Bytes of a buffer that a dispatch may see; by default what the device allows. Less is for tests of what is larger. */
  readonly bindingBytes?: number;
}

/** What kernels go by. */
export function kernelLimitsOf(
  limits: GPUSupportedLimits,
  {
    fallback,
    subgroups,
    subgroupMatrices = false,
    splitProducts = false,
    bindingBytes = limits.maxStorageBufferBindingSize,
  }: WebGpuBackendOptions,
): KernelLimits {
  return {
    fallback,
    subgroups: subgroups !== undefined,
    subgroupMatrices,
    splitProducts,
    subgroupMin: subgroups?.min ?? 0,
    subgroupMax: subgroups?.max ?? 0,
    buffers: limits.maxStorageBuffersPerShaderStage,
    workgroupSize: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
    workgroupBytes: limits.maxComputeWorkgroupStorageSize,
    // Whole vectors.
    bindingBytes: Math.floor(bindingBytes / 16) * 16,
  };
}

/** That matrices are used by whole subgroups cannot be seen from a shader's text, where it depends on the number of the thread. */
const matrixDirectives = [
  "enable f16;",
  "enable chromium_experimental_subgroup_matrix;",
  "diagnostic(off, chromium.subgroup_matrix_uniformity);",
];

/** What every shader begins with. */
export function directivesOf({ subgroups, subgroupMatrices = false }: WebGpuBackendOptions): string[] {
  return [...(subgroups === undefined ? [] : ["enable subgroups;"]), ...(subgroupMatrices ? matrixDirectives : [])];
}
