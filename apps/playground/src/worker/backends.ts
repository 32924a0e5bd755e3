// Layer: apps/playground, worker. The one place that knows backends by name: which there are, whether each works in this browser, and
// which is taken where none is named. Knows how to open a device. Knows no run.

import { wasmAvailability, wasmCpu } from "@diffmamba/backend-cpu/wasm";
import { type Device, reference } from "@diffmamba/tensor";
import type { BackendName, BackendReport } from "../protocol.js";

type Availability = { readonly available: true } | { readonly available: false; readonly reason: string };

interface Backend {
  readonly name: BackendName;
  readonly title: string;
  availability(): Promise<Availability>;
  open(options: { readonly threads?: number }): Promise<Device>;
}

/** Best first. */
const backends: readonly Backend[] = [
  {
    name: "wasm",
    title: "WebAssembly",
    availability: async () => wasmAvailability(),
    open: (options) => wasmCpu(options),
  },
  {
    name: "reference",
    title: "JavaScript",
    availability: async () => ({ available: true }),
    open: async () => reference(),
  },
];

async function report({ name, title, availability }: Backend): Promise<BackendReport> {
  try {
    const found = await availability();
    return { name, title, available: found.available, reason: found.available ? "" : found.reason };
  } catch (error) {
    return { name, title, available: false, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Whether each backend works here. */
export const backendReports = (): Promise<BackendReport[]> => Promise.all(backends.map(report));

export interface OpenedBackend {
  readonly device: Device;
  readonly name: BackendName;
  readonly title: string;
  /** Why it is not the one that was asked for. */
  readonly note?: string;
}

/**
 * The backend that is named, or the best one that works; where that fails, the next best.
 * @throws Error where none works, saying why each does not
 */
export async function openBackend(
  asked: BackendName | undefined,
  options: { readonly threads?: number },
): Promise<OpenedBackend> {
  const failures: string[] = [];
  const first = backends.filter(({ name }) => name === asked);
  for (const backend of [...first, ...backends.filter((one) => !first.includes(one))]) {
    const { name, title } = backend;
    try {
      const found = await backend.availability();
      if (!found.available) throw new Error(found.reason);
      const device = await backend.open(options);
      const note = asked !== undefined && name !== asked ? failures[0] : undefined;
      return { device, name, title, ...(note !== undefined && { note }) };
    } catch (error) {
      failures.push(`${title} does not work here: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(`No backend works in this browser. ${failures.join(" ")}`);
}
