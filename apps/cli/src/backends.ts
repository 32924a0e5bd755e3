// Layer: apps/cli. The one place that knows backends by name: which there are, which is used where none is named, whether each works
// here, and why not. Knows how to open a device. Knows no command.
import process from "node:process";
import { cpu, cpuAvailability, defaultThreads } from "@diffmamba/backend-cpu";
import { type Device, reference } from "@diffmamba/tensor";
import { CommandError, messageOf, UsageError } from "./errors.js";
import { didYouMean } from "./suggest.js";

/** What --backend and --threads say. */
export interface DeviceFlags {
  readonly backend?: string;
  readonly threads?: number;
}

interface BackendEntry {
  readonly name: string;
  /** Whether it computes on threads whose number can be chosen. */
  readonly hasThreads: boolean;
  /** Opens a device, or says in an error why that cannot be. */
  open(options: { readonly threads?: number }): Promise<Device>;
}

/**
 * A backend in a package of its own, which need not be installed. Such a package exports a function of the backend's name that gives a
 * device. `load` imports it, written out so that a bundler finds it.
 */
function optional(name: string, load: () => Promise<object>): BackendEntry {
  const specifier = `@diffmamba/backend-${name}`;
  return {
    name,
    hasThreads: false,
    async open() {
      let module: Record<string, unknown>;
      try {
        module = (await load()) as Record<string, unknown>;
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        if (code !== "ERR_MODULE_NOT_FOUND" || !message.includes(`'${specifier}'`)) throw error;
        throw new CommandError(`the package ${specifier} is not installed`, { cause: error });
      }
      const open = module[name];
      if (typeof open !== "function") throw new CommandError(`the package ${specifier} has no function ${name}()`);
      return (await open()) as Device;
    },
  };
}

const backends: readonly BackendEntry[] = [
  { name: "cpu", hasThreads: true, open: cpu },
  { name: "reference", hasThreads: false, open: async () => reference() },
  optional("webgpu", () => import("@diffmamba/backend-webgpu/node")),
  optional("cuda", () => import("@diffmamba/backend-cuda")),
];

export const backendNames: readonly string[] = backends.map(({ name }) => name);

/** The backend where none is named. */
export const defaultBackend = "cpu";

/** What is used where the default does not work here. */
const fallback = "reference";

/** The most threads that may be asked for. */
export const maxThreads = 1024;

/** @throws UsageError for a name that is none */
export function checkBackendName(name: string): void {
  if (backendNames.includes(name)) return;
  throw new UsageError(`--backend ${name}: no such backend.${didYouMean(name, backendNames, 8)}`);
}

/** The number of threads that DIFFMAMBA_THREADS asks for, if it is set. @throws UsageError where it is none */
function environmentThreads(): number | undefined {
  const text = process.env.DIFFMAMBA_THREADS;
  if (text === undefined || text === "") return undefined;
  const threads = Number(text);
  if (Number.isInteger(threads) && threads >= 1 && threads <= maxThreads) return threads;
  throw new UsageError(`DIFFMAMBA_THREADS is "${text}"; it must be a whole number from 1 to ${maxThreads}.`);
}

/** The backend that is named, else the default; where that does not work here, the fallback, and `note` is told why. */
function chooseBackend(named: string | undefined, note: (line: string) => void): BackendEntry {
  if (named !== undefined) checkBackendName(named);
  const found = cpuAvailability();
  if (named === undefined && !found.available) {
    note(
      `using the ${fallback} backend, which is much slower than ${defaultBackend}: ${found.reason}; ${found.remedy}.`,
    );
  }
  const name = named ?? (found.available ? defaultBackend : fallback);
  return backends.find((one) => one.name === name) as BackendEntry;
}

/** A backend that there is, and the threads that it gets where it has any. */
export interface DeviceChoice {
  readonly backend: string;
  readonly threads?: number;
}

/**
 * What the flags say, and what is taken where they say nothing: the default backend, with DIFFMAMBA_THREADS or as many threads as can
 * run at once.
 * @param note takes a line where another backend than the default has to be taken
 * @param processes how many such devices compute side by side, and share the processors
 * @throws UsageError for a name that is none, and for threads where there are none
 */
export function chooseDevice(flags: DeviceFlags, note: (line: string) => void, processes = 1): DeviceChoice {
  const { name, hasThreads } = chooseBackend(flags.backend, note);
  if (hasThreads) {
    const share = () => Math.max(1, Math.floor(defaultThreads() / processes));
    return { backend: name, threads: flags.threads ?? environmentThreads() ?? share() };
  }
  // Threads that are asked for without a backend are meant for the default one.
  if (flags.threads !== undefined && flags.backend !== undefined) {
    throw new UsageError(`--threads ${flags.threads}: the backend ${name} has no threads; ${defaultBackend} has.`);
  }
  return { backend: name };
}

/** Why a backend could not be opened, without its name and the full stop. */
function reasonOf(name: string, error: unknown): string {
  const message = messageOf(error);
  return (message.startsWith(`${name}: `) ? message.slice(name.length + 2) : message).replace(/\.$/, "");
}

/** A device as it was chosen. @throws CommandError, with the reason, for a backend that does not work here */
export async function openDevice({ backend: name, ...options }: DeviceChoice): Promise<Device> {
  const entry = backends.find((one) => one.name === name) as BackendEntry;
  try {
    return await entry.open(options);
  } catch (error) {
    throw new CommandError(
      `backend ${name} does not work here: ${reasonOf(name, error)}. \`diffmamba doctor\` lists the backends that do.`,
      { cause: error },
    );
  }
}

export interface BackendReport {
  readonly name: string;
  readonly available: boolean;
  /** Why it is not available; null where it is. */
  readonly reason: string | null;
  /** What it computes on: for cpu, instruction set and threads; null where it is not available. */
  readonly device: string | null;
}

/** Tries every backend. */
export async function probeBackends(): Promise<BackendReport[]> {
  const reports: BackendReport[] = [];
  for (const { name, open } of backends) {
    const { backend: _, ...options } = chooseDevice({ backend: name }, () => undefined);
    try {
      await using device = await open(options);
      reports.push({ name, available: true, reason: null, device: device.backend.device });
    } catch (error) {
      reports.push({ name, available: false, reason: reasonOf(name, error), device: null });
    }
  }
  return reports;
}
