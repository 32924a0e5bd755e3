// Layer: apps/cli. The one place that knows backends by name: which there are, whether each works here, and why not.
// Knows how to open a device. Knows no command.
import { type Device, reference } from "@diffmamba/tensor";
import { CommandError, messageOf, UsageError } from "./errors.js";
import { didYouMean } from "./suggest.js";

interface BackendEntry {
  readonly name: string;
  /** Opens a device, or says in an error why that cannot be. */
  open(): Promise<Device>;
}

/**
 * A backend in a package of its own, which need not be installed. Such a package exports a function of the backend's name that gives
 * a device.
 */
function optional(name: string): BackendEntry {
  const specifier = `@diffmamba/backend-${name}`;
  return {
    name,
    async open() {
      let module: Record<string, unknown>;
      try {
        module = await import(specifier);
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
  { name: "reference", open: async () => reference() },
  optional("cpu"),
  optional("webgpu"),
  optional("cuda"),
];

export const backendNames: readonly string[] = backends.map(({ name }) => name);

/** The backend where none is named. */
export const defaultBackend = "reference";

/** @throws UsageError for a name that is none */
export function checkBackendName(name: string): void {
  if (backendNames.includes(name)) return;
  throw new UsageError(`--backend ${name}: no such backend.${didYouMean(name, backendNames, 8)}`);
}

/**
 * A device on a backend.
 * @throws UsageError for a name that is none; CommandError, with the reason, for a backend that does not work here
 */
export async function openDevice(name: string): Promise<Device> {
  checkBackendName(name);
  const entry = backends.find((backend) => backend.name === name) as BackendEntry;
  try {
    return await entry.open();
  } catch (error) {
    throw new CommandError(
      `backend ${name} does not work here: ${messageOf(error)}. \`diffmamba doctor\` lists the backends that do.`,
      { cause: error },
    );
  }
}

export interface BackendReport {
  readonly name: string;
  readonly available: boolean;
  /** Why it is not available; null where it is. */
  readonly reason: string | null;
  /** What it computes on; null where it is not available. */
  readonly device: string | null;
}

/** Tries every backend. */
export async function probeBackends(): Promise<BackendReport[]> {
  const reports: BackendReport[] = [];
  for (const { name, open } of backends) {
    try {
      await using device = await open();
      reports.push({ name, available: true, reason: null, device: device.backend.device });
    } catch (error) {
      reports.push({ name, available: false, reason: messageOf(error), device: null });
    }
  }
  return reports;
}
