// Layer: the WebGPU backend. From where adapters come (a browser's navigator.gpu, Dawn in Node) to a backend: which limits and
// features are asked for, and whether the adapter has what the kernels need.
// Knows adapters. Knows no platform.

import { BackendError } from "@diffmamba/tensor";
import { WebGpuBackend } from "./backend.js";

/** What kernels need, and would not run without. */
const needed = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupStorageSize: 16384,
} as const;

/** Limits of which as much is asked for as there is; a device has the specification's defaults of what nobody asks for. */
const wanted = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Still an experiment of Dawn's, behind its switch `allow_unsafe_apis`: not among the names of the specification. */
const matrixFeature = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

const wantedFeatures: readonly GPUFeatureName[] = ["subgroups", "shader-f16", "timestamp-query", matrixFeature];

interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Whether an adapter has the matrices of {@link KernelLimits.subgroupMatrices}. */
function hasMatrices(info: GPUAdapterInfo, features: ReadonlySet<GPUFeatureName>): boolean {
  if (!features.has(matrixFeature) || !features.has("shader-f16") || !features.has("subgroups")) return false;
  const { subgroupMatrixConfigs = [] } = info as { readonly subgroupMatrixConfigs?: Iterable<MatrixConfig> };
  const shapes = Array.from(subgroupMatrixConfigs, ({ componentType, resultComponentType, M, N, K }) =>
    componentType === "f16" && resultComponentType === "f32" ? `${M} ${N} ${K}` : "",
  );
  const sizes = info.subgroupMinSize === 32 && info.subgroupMaxSize === 32;
  return sizes && ["16 8 16", "16 16 16"].every((shape) => shapes.includes(shape));
}

/** GeForce cards sum products of f16 in f32 at half the rate of their units: three of these take longer than one of f32. */
const hasSlowUnits = ({ description, device }: GPUAdapterInfo): boolean => /geforce/i.test(`${description} ${device}`);

function describe({ vendor, architecture, device, description }: GPUAdapterInfo): string {
  return description || [vendor, architecture, device].filter(Boolean).join(" ") || "an adapter without a name";
}

/** What an adapter lacks, or nothing. */
function lack({ limits }: GPUAdapter): string | undefined {
  for (const [name, least] of Object.entries(needed)) {
    const has = limits[name as keyof typeof needed];
    if (has < least) return `its ${name} is ${has}; the kernels need ${least}`;
  }
  return undefined;
}

async function findAdapter(gpu: GPU, powerPreference: GPUPowerPreference = "high-performance") {
  return (await gpu.requestAdapter({ powerPreference })) ?? undefined;
}

/** Whether an adapter can be used; undefined where there is none. */
export async function probe(gpu: GPU, powerPreference?: GPUPowerPreference) {
  const adapter = await findAdapter(gpu, powerPreference);
  if (adapter === undefined) return undefined;
  const missing = lack(adapter);
  if (missing === undefined) return { available: true, device: describe(adapter.info) } as const;
  const reason = `${describe(adapter.info)} cannot run the kernels: ${missing}`;
  return { available: false, reason, remedy: "use another GPU" } as const;
}

/** What a caller may choose of a backend: as in the options of `webgpu()`. */
interface BackendChoices {
  readonly holdOutputs?: boolean;
  readonly matrixUnits?: boolean;
}

/** A backend on the preferred adapter; undefined where there is none. @throws BackendError for one that lacks something */
export async function openBackend(
  gpu: GPU,
  powerPreference?: GPUPowerPreference,
  { holdOutputs, matrixUnits }: BackendChoices = {},
): Promise<WebGpuBackend | undefined> {
  const adapter = await findAdapter(gpu, powerPreference);
  if (adapter === undefined) return undefined;
  const { info, limits, features } = adapter;
  const missing = lack(adapter);
  if (missing !== undefined) throw new BackendError(`webgpu: ${describe(info)}: ${missing}.`);
  const unwanted = matrixUnits === false ? matrixFeature : undefined;
  const requiredFeatures = wantedFeatures.filter((feature) => features.has(feature) && feature !== unwanted);
  const device = await adapter.requestDevice({
    requiredFeatures,
    requiredLimits: Object.fromEntries(wanted.map((name) => [name, limits[name]])),
  });
  const { subgroupMinSize: min, subgroupMaxSize: max } = info;
  const subgroups = requiredFeatures.includes("subgroups") && min > 0 ? { min, max } : undefined;
  const subgroupMatrices = hasMatrices(info, new Set(requiredFeatures));
  const splitProducts = subgroupMatrices && (matrixUnits ?? !hasSlowUnits(info));
  const fallback = info.isFallbackAdapter ?? false;
  const choices = { subgroups, subgroupMatrices, splitProducts, fallback, holdOutputs };
  return new WebGpuBackend(device, { name: describe(info), ...choices });
}
