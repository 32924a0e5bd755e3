// Layer: apps/playground, worker. The one place that knows backends by name: which there are, whether each works in this browser, and
// which is taken where none is named. Knows how to open a device. Knows no run.

import { wasmAvailability, wasmCpu } from "@diffmamba/backend-cpu/wasm";
import { webgpu, webgpuAvailability } from "@diffmamba/backend-webgpu";
import { type Device, reference } from "@diffmamba/tensor";
import type { BackendName, BackendReport } from "../protocol.js";

type Availability =
  | { readonly available: true; readonly device?: string }
  | { readonly available: false; readonly reason: string };

interface Backend {
  readonly name: BackendName;
  readonly title: string;
  availability(): Promise<Availability>;
  open(options: { readonly threads?: number }): Promise<Device>;
}

/** Best first. */
const backends: readonly Backend[] = [
  {
    name: "webgpu",
    title: "WebGPU",
    availability: () => webgpuAvailability(),
    open: () => webgpu(),
  },
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

/** Adapters of WebGPU that are programs. */
const software = /swiftshader|llvmpipe|lavapipe|software|basic render/i;

async function report({ name, title, availability }: Backend): Promise<BackendReport> {
  const base = { name, title, software: false };
  try {
    const found = await availability();
    if (!found.available) return { ...base, available: false, reason: found.reason };
    return { ...base, available: true, reason: "", software: name === "webgpu" && software.test(found.device ?? "") };
  } catch (error) {
    return { ...base, available: false, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Whether each backend works here. */
export const backendReports = (): Promise<BackendReport[]> => Promise.all(backends.map(report));

export interface OpenedBackend {
  readonly device: Device;
  readonly name: BackendName;
  readonly title: string;
  /** Why it is not the one that was asked for, or that should have worked. */
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
  const reports = await backendReports();
  const rank = ({ name, software }: BackendReport) => (name === asked ? 0 : software ? 2 : 1);
  const failures: string[] = [];
  /** What the visitor did not expect. */
  let note: string | undefined;
  for (const { name, title, available, reason } of [...reports].sort((a, b) => rank(a) - rank(b))) {
    try {
      const backend = backends.find((one) => one.name === name);
      if (!available || backend === undefined) throw new Error(reason);
      const device = await backend.open(options);
      return { device, name, title, ...(note !== undefined && { note }) };
    } catch (error) {
      const failure = `${title} does not work here: ${error instanceof Error ? error.message : String(error)}`;
      failures.push(failure);
      if (available || name === asked) note ??= failure;
    }
  }
  throw new Error(`No backend works in this browser. ${failures.join(" ")}`);
}
