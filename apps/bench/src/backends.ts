// Layer: apps/bench. The backends by name, and how each is opened. A line here is all that a new one needs.
// Knows how to open a device. Knows no suite.
import { type Device, reference } from "@diffmamba/tensor";
import { FailureError, messageOf, UsageError } from "./errors.js";
import type { DeviceChoice } from "./race.js";

export interface BackendEntry {
  readonly name: string;
  /** Opens a device, or says in an error why that cannot be. */
  open(options?: DeviceChoice): Promise<Device>;
}

/**
 * A backend in a package of its own, which need not be installed: it exports a function of the backend's name that
 * gives a device. `load` imports it, by its own name if there is none.
 */
export function optional(name: string, load?: () => Promise<object>): BackendEntry {
  const specifier = `@diffmamba/backend-${name}`;
  return {
    name,
    async open(options) {
      let module: Record<string, unknown>;
      try {
        module = (await (load?.() ?? import(specifier))) as Record<string, unknown>;
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        if (code !== "ERR_MODULE_NOT_FOUND" || !message.includes(`'${specifier}'`)) throw error;
        throw new FailureError(`the package ${specifier} is not installed`, { cause: error });
      }
      const open = module[name];
      if (typeof open !== "function") throw new FailureError(`the package ${specifier} has no function ${name}()`);
      return (await open(options)) as Device;
    },
  };
}

export const backends: readonly BackendEntry[] = [
  { name: "reference", open: async () => reference() },
  // Written out, so that a bundler finds them.
  optional("cpu", () => import("@diffmamba/backend-cpu")),
  optional("webgpu", () => import("@diffmamba/backend-webgpu/node")),
  optional("cuda", () => import("@diffmamba/backend-cuda")),
];

/** What is measured where no backend is named. */
export const defaultBackend = "reference";

/** A device of one backend. @throws FailureError, with the reason, for a backend that does not work here */
export async function openDevice(name: string, options?: DeviceChoice, known = backends): Promise<Device> {
  try {
    const entry = known.find((backend) => backend.name === name);
    if (entry === undefined) throw new Error("there is no such backend");
    return await entry.open(options);
  } catch (error) {
    const reason = messageOf(error).replace(/\.$/, "");
    throw new FailureError(`backend ${name} does not work here: ${reason}.`, { cause: error });
  }
}

/**
 * Devices for `names`, in their order. @throws UsageError for a name that is none or that comes twice; FailureError,
 * with the reason, for a backend that does not work here
 */
export async function openDevices(names: readonly string[], known = backends): Promise<Device[]> {
  const unknown = names.find((name) => !known.some((entry) => entry.name === name));
  if (unknown !== undefined) {
    throw new UsageError(`--backend ${unknown}: there is ${known.map((entry) => entry.name).join(", ")}.`);
  }
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`--backend ${twice}: named twice.`);
  const devices: Device[] = [];
  for (const name of names) {
    try {
      devices.push(await openDevice(name, undefined, known));
    } catch (error) {
      for (const device of devices) await device.dispose();
      throw error;
    }
  }
  return devices;
}
