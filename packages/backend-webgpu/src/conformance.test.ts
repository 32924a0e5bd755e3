// The goldens and the conformance suite on WebGPU through Dawn; without a GPU, on a driver that computes on the processor.

import { describeConformance, goldenTests } from "@diffmamba/conformance";
import { afterAll, describe, expect, it } from "vitest";
import type { WebGpuBackend } from "./backend.js";
import { chosen } from "./chosen.testing.js";
import { readGoldens } from "./goldens.testing.js";
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
  const goldens = goldenTests(await readGoldens(), ["f32"]);
  describe(`the goldens on ${title}`, () => {
    for (const test of goldens) {
      // Further files of a kind of block are other sizes of the same.
      if (fallback && /block_[1-9]/.test(test.name)) continue;
      it(test.name, async () => {
        const before = device.memory().tensors;
        await test.run(device);
        expect(device.memory().tensors - before, "tensors left behind").toBe(0);
      });
    }
  });
  // On the same device, whose shaders are compiled by then; it is disposed of at the end.
  describeConformance({ describe, it, afterAll }, title, device, { filter: chosen(fallback) });
}
