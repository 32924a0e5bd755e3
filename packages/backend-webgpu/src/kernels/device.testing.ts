// For tests: a WebGPU device for a group of them, or their names as skipped, with the reason, where there is none.

import process from "node:process";
import type { Device } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, it } from "vitest";
import { webgpu, webgpuAvailability } from "../node.js";

const availability = await webgpuAvailability();

/** Drivers that compute on the processor, where a shader takes seconds to compile. */
const onProcessor = /swiftshader|llvmpipe/i;

/** Why tests of a group do not run here, if they do not. */
function reasonToSkip(slow: boolean): string | undefined {
  if (!availability.available) return availability.reason;
  if (!slow || process.env.DIFFMAMBA_SLOW || !onProcessor.test(availability.device)) return undefined;
  return "the conformance suite stands for them on a driver on the processor; DIFFMAMBA_SLOW=1 runs them there too";
}

function describeTests(name: string, tests: (device: () => Device) => void, slow: boolean): void {
  const reason = reasonToSkip(slow);
  if (reason !== undefined || !availability.available) {
    describe.skipIf(true)(`${name}: ${reason}`, () => it("runs", () => undefined));
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

/** Tests on one device, which is there while they run. */
export function describeWithDevice(name: string, tests: (device: () => Device) => void): void {
  describeTests(name, tests, false);
}

/** The same for more shapes of what the conformance suite has: too many shaders for a driver on the processor. */
export function describeThoroughly(name: string, tests: (device: () => Device) => void): void {
  describeTests(name, tests, true);
}
