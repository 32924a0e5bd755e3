// The conformance suite on WebGPU through Dawn; without a GPU, on a driver that computes on the processor.

import { describeConformance } from "@diffmamba/conformance";
import { afterAll, describe, it } from "vitest";
import type { WebGpuBackend } from "./backend.js";
import { chosen } from "./chosen.testing.js";
import { webgpu, webgpuAvailability } from "./node.js";

const availability = await webgpuAvailability();

if (!availability.available) {
  describe.skipIf(true)(`the WebGPU backend: ${availability.reason}`, () =>
    it("passes the conformance suite", () => undefined),
  );
} else {
  const device = await webgpu();
  const { fallback } = (device.backend as WebGpuBackend).context.limits;
  const title = `webgpu (${availability.device})`;
  describeConformance({ describe, it, afterAll }, title, device, { filter: chosen(fallback) });
}
