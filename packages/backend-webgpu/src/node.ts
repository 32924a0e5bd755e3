// Layer: the WebGPU backend's entry for Node. Adapters come from Dawn, the `webgpu` package; why there is none, in words.
// Knows Node, Vulkan's loader and where drivers lie. Knows no kernel.

import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import process from "node:process";
import { BackendError, type Device } from "@diffmamba/tensor";
import {
  webgpu as open,
  webgpuAvailability as probe,
  type TableStore,
  type WebGpuAvailability,
  type WebGpuOptions,
} from "./index.js";
import { joinSwitches } from "./switches.js";

export { type MatmulTable, type MatmulTuneOptions, tuneMatmul, type WebGpuAvailability } from "./index.js";

export interface NodeWebGpuOptions extends WebGpuOptions {
  /** Switches of Dawn, such as "backend=vulkan" or "adapter=NVIDIA"; only those of the process's first device count. */
  readonly dawn?: readonly string[];
}

interface DawnModule {
  create(flags: string[]): GPU;
}

/** Kept for as long as the process lives: without a strong reference to it Dawn ends the process when garbage is collected. */
const kept = Symbol.for("@diffmamba/backend-webgpu: the object of create()");

type Keeper = { [kept]?: GPU };

interface Absence {
  readonly reason: string;
  readonly remedy: string;
}

/** Dawn's entry point, or why there is none. */
async function dawn(flags: readonly string[] = []): Promise<GPU | Absence> {
  const keeper = globalThis as Keeper;
  if (keeper[kept] !== undefined) return keeper[kept];
  let module: DawnModule;
  try {
    module = (await import("webgpu")) as unknown as DawnModule;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ERR_MODULE_NOT_FOUND" && message.includes("'webgpu'")) {
      return { reason: "the package webgpu is not installed", remedy: "npm install webgpu" };
    }
    const where = `${process.platform} ${process.arch}`;
    return {
      reason: `the package webgpu does not load on ${where}: ${message.split("\n")[0]}`,
      remedy: "use a platform that it has a build for: Linux (glibc), macOS or Windows",
    };
  }
  keeper[kept] = module.create(joinSwitches([...(onProcessor() ? softwareSwitches : matrixSwitches), ...flags]));
  return keeper[kept];
}

/** Where drivers tell Vulkan's loader about themselves, and where Debian's Chromium keeps a driver that needs no GPU. */
const driverFolders = [
  "/usr/share/vulkan/icd.d",
  "/etc/vulkan/icd.d",
  "/usr/local/share/vulkan/icd.d",
  "/usr/local/etc/vulkan/icd.d",
  "/run/opengl-driver/share/vulkan/icd.d",
  ...(process.env.HOME ? [`${process.env.HOME}/.local/share/vulkan/icd.d`] : []),
];
const libraryFolders = [
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib/aarch64-linux-gnu",
  "/usr/lib64",
  "/usr/lib",
  "/usr/local/lib",
];
const softwareDrivers = [
  "/usr/lib/chromium/vk_swiftshader_icd.json",
  "/usr/lib/chromium-browser/vk_swiftshader_icd.json",
  "/opt/google/chrome/vk_swiftshader_icd.json",
];

/** What tells Vulkan's loader which drivers there are, beside its folders. */
const driverVariables = ["VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES"];

/**
 * Dawn's switches for a driver on the processor. Its compiler writes out every word that workgroup memory begins with, most of a shader;
 * without Vulkan's extension for that, the shader begins with a loop.
 */
const softwareSwitches = ["disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension"];

/** Dawn's switches for matrix units, an experiment of its, and for f16 on NVIDIA's GPUs: they allow, and change nothing by themselves. */
const matrixSwitches = ["enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia"];

/** Whether Vulkan's loader is told of a driver on the processor alone. */
function onProcessor(): boolean {
  const files = driverVariables.flatMap((name) => process.env[name]?.split(":") ?? []);
  return files.length > 0 && files.every((file) => softwareDrivers.includes(file) || /swiftshader/i.test(file));
}

function installedDrivers(): string[] {
  return driverFolders.flatMap((folder) =>
    existsSync(folder) ? readdirSync(folder).map((name) => `${folder}/${name}`) : [],
  );
}

/** A Vulkan driver that computes on the processor, for machines without a GPU: slow. Undefined where none is installed. */
export function softwareDriver(): string | undefined {
  return softwareDrivers.find((file) => existsSync(file));
}

const noGpu =
  "without a GPU, apt-get install chromium and set VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json, a slow driver on the processor";

const slow = (): string => {
  const software = softwareDriver();
  return software === undefined
    ? noGpu
    : `without a GPU, set VK_ICD_FILENAMES=${software}, a slow driver on the processor`;
};

const drivers = "apt-get install nvidia-vulkan-icd, or mesa-vulkan-drivers for AMD and Intel (Debian)";

/** What of Vulkan is missing on Linux, found without asking Dawn, which would complain on stderr; undefined if it is worth trying. */
function missingVulkan(): Absence | undefined {
  if (process.platform !== "linux") return undefined;
  if (!process.env.LD_LIBRARY_PATH && !libraryFolders.some((folder) => existsSync(`${folder}/libvulkan.so.1`))) {
    return {
      reason: "there is no Vulkan loader, libvulkan.so.1",
      remedy: `apt-get install libvulkan1 (Debian, Ubuntu), and a driver: ${drivers}; ${slow()}`,
    };
  }
  const named = driverVariables.find((name) => process.env[name]);
  if (named !== undefined) {
    const files = (process.env[named] as string).split(":");
    if (files.some((file) => existsSync(file))) return undefined;
    return {
      reason: `${named} names Vulkan drivers that do not exist: ${files.join(", ")}`,
      remedy: `unset ${named}, or name the file of a driver; ${slow()}`,
    };
  }
  return installedDrivers().length > 0
    ? undefined
    : { reason: "there is no Vulkan driver", remedy: `${drivers}; ${slow()}` };
}

/** Why Dawn gives no adapter although it was worth trying. */
function noAdapter(): Absence {
  if (process.platform !== "linux") return { reason: "Dawn gives no adapter", remedy: "install a driver for a GPU" };
  const named = driverVariables.find((name) => process.env[name]);
  if (named !== undefined) {
    return {
      reason: `the Vulkan drivers that ${named} names, ${process.env[named]}, give no adapter`,
      remedy: `unset ${named}, or name the file of a driver that works`,
    };
  }
  const reason = `none of the Vulkan drivers (${installedDrivers().join(", ")}) has a usable GPU`;
  return { reason, remedy: `${drivers}; ${slow()}` };
}

/** Whether the backend works here and, if not, why, and what would make it. */
export async function webgpuAvailability(options: NodeWebGpuOptions = {}): Promise<WebGpuAvailability> {
  const gpu = options.gpu ?? missingVulkan() ?? (await dawn(options.dawn));
  if ("reason" in gpu) return { available: false, ...gpu };
  const found = await probe({ ...options, gpu });
  return found.available || !found.reason.includes("no WebGPU adapter") ? found : { available: false, ...noAdapter() };
}

/** Where a user's programs keep what they can make again. */
function cacheFolder(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  const base = XDG_CACHE_HOME || (process.platform === "win32" ? LOCALAPPDATA : undefined);
  return path.join(base || path.join(homedir(), ".cache"), "diffmamba");
}

/** Tables as one file of JSON, `webgpu.json` in the folder; it is written beside and renamed. */
export function fileTables(folder = cacheFolder()): TableStore {
  const file = path.join(folder, "webgpu.json");
  const all = async (): Promise<Record<string, unknown>> => {
    const parsed: unknown = JSON.parse(await readFile(file, "utf8").catch(() => "{}"));
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
  };
  return {
    read: async (name) => (await all())[name],
    async write(name, table) {
      const tables = await all().catch(() => ({}));
      await mkdir(folder, { recursive: true });
      const part = `${file}.${process.pid}.part`;
      try {
        await writeFile(part, `${JSON.stringify({ ...tables, [name]: table }, undefined, 2)}\n`);
        await rename(part, file);
      } finally {
        await rm(part, { force: true });
      }
    },
  };
}

/**
 * A device on the WebGPU backend, through Dawn. The first time on an adapter it searches for the matrix product's tiles, some seconds.
 * @throws BackendError where there is no Dawn, no adapter, or one that lacks what the kernels need
 */
export async function webgpu(options: NodeWebGpuOptions = {}): Promise<Device> {
  const found = await webgpuAvailability(options);
  if (!found.available) throw new BackendError(`webgpu: ${found.reason}; ${found.remedy}.`);
  const gpu = options.gpu ?? ((await dawn()) as GPU);
  return open({ tiles: "search", tables: fileTables(), holdOutputs: true, ...options, gpu });
}
