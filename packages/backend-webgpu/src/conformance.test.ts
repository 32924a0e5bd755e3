// The conformance suite and the goldens on WebGPU through Dawn; without a GPU, on a driver that computes on the processor.

import { describeConformance } from "@diffmamba/conformance";
import { afterAll, describe, it } from "vitest";
import { webgpu, webgpuAvailability } from "./node.js";

const availability = await webgpuAvailability();

if (!availability.available) {
  describe.skipIf(true)(`the WebGPU backend: ${availability.reason}`, () =>
    it("passes the conformance suite", () => undefined),
  );
} else {
  describeConformance({ describe, it, afterAll }, `webgpu (${availability.device})`, await webgpu());
}
