// The conformance suite's ops in a browser, in f32 and whole numbers: the same kernels by another road, navigator.gpu.

import { describeConformance } from "@diffmamba/conformance";
import { afterAll, describe, expect, it } from "vitest";
import { webgpu, webgpuAvailability } from "./index.js";

const inBrowser = "document" in globalThis;
const availability = await webgpuAvailability();

if (!inBrowser) {
  describe.skipIf(true)("WebGPU in Chromium: there is no Chromium; apt-get install chromium", () =>
    it("passes the ops of the conformance suite", () => undefined),
  );
} else if (!availability.available) {
  describe.skipIf(true)(`WebGPU in Chromium: ${availability.reason}`, () =>
    it("passes the ops of the conformance suite", () => undefined),
  );
} else {
  it("runs on a page that is cross-origin isolated", () => {
    expect(globalThis.crossOriginIsolated).toBe(true);
  });
  const seen = new Set<string>();
  describeConformance({ describe, it, afterAll }, `webgpu in Chromium (${availability.device})`, await webgpu(), {
    dtypes: ["f32", "i32", "u8"],
    // What differs from Node is the road to the device: the first case of each op goes all of it.
    filter: ({ suite, op = "" }) => {
      if (suite !== "ops" || seen.has(op)) return false;
      seen.add(op);
      return true;
    },
  });
}
