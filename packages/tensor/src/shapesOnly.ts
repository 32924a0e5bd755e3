// A backend that computes nothing: tensors have shapes and sizes but no content. It counts parameters of models too
// large to make, and the memory that a step would take, by running the very code that would take it.
// Knows the Backend interface. Knows no kernel but by name.

import type { Backend, Kernels } from "./backend.js";
import { Device } from "./device.js";
import { dtypes } from "./dtype.js";
import { BackendError } from "./errors.js";
import { ReferenceBackend } from "./reference/backend.js";

const nothing = () => undefined;

/**
 * A device whose tensors hold no data. Reading one is an error.
 * @param like what is made follows the preferences of this device, such as the chunks of its scans
 */
export function shapesOnly(like?: Device): Device {
  let held = 0;
  const names = Object.keys(new ReferenceBackend().kernels);
  const backend: Backend = {
    name: "shapes only",
    device: "none",
    dtypes: new Set(dtypes),
    holdsData: false,
    ...(like?.backend.chunkSizes && { chunkSizes: like.backend.chunkSizes }),
    ...(like?.backend.holdsOutputs && { holdsOutputs: true }),
    kernels: Object.fromEntries(names.map((name) => [name, nothing])) as unknown as Kernels,
    allocate: (bytes) => {
      held += bytes;
      return { bytes };
    },
    free: ({ bytes }) => {
      held -= bytes;
    },
    write: nothing,
    read: () => Promise.reject(new BackendError("shapes only: its tensors hold no data.")),
    synchronize: () => Promise.resolve(),
    heldBytes: () => held,
    dispose: () => Promise.resolve(),
  };
  return new Device(backend);
}
