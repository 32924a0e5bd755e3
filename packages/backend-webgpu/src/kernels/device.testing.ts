// For tests: a WebGPU device for a group of them, or their names as skipped, with the reason, where there is none.

import type { Device } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, it } from "vitest";
import { webgpu, webgpuAvailability } from "../node.js";

const availability = await webgpuAvailability();

/** Tests on one device, which is there while they run. */
export function describeWithDevice(name: string, tests: (device: () => Device) => void): void {
  if (!availability.available) {
    describe.skipIf(true)(`${name}: ${availability.reason}`, () => it("runs", () => undefined));
    return;
  }
  describe(`${name} (${availability.device})`, () => {
    let device: Device | undefined;
    beforeAll(async () => {
      device = await webgpu();
    });
    afterAll(async () => device?.dispose());
    tests(() => device as Device);
  });
}
