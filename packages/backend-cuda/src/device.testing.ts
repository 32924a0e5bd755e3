// Layer: CUDA backend, tests. A device as its driver describes it, where none is there.

import type { DeviceProperties } from "./context.js";

/** An H100. */
export const hopper: DeviceProperties = {
  name: "a GPU",
  computeCapability: 90,
  multiprocessors: 132,
  sharedPerBlock: 232448,
  sharedPerMultiprocessor: 233472,
  l2Bytes: 50 * 2 ** 20,
  memoryBytes: 80e9,
};
