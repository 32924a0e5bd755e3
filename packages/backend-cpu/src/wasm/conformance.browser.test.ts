// The conformance suite's ops in a browser, in f32 and whole numbers: the module that the engine takes, fetched, on the page's own thread,
// which may not sleep, and a worker.

import { describeConformance } from "@diffmamba/conformance";
import { afterAll, describe, expect, inject, it } from "vitest";
import { wasmAvailability, wasmCpu } from "./index.js";

declare module "vitest" {
  interface ProvidedContext {
    readonly wasmIsBuilt: boolean;
  }
}

const reason = !("document" in globalThis)
  ? "there is no Chromium; apt-get install chromium"
  : !inject("wasmIsBuilt")
    ? "it was not built (scripts/build-wasm.mjs; it needs clang-19 and lld-19)"
    : undefined;

if (reason !== undefined) {
  describe.skipIf(true)(`WASM in Chromium: ${reason}`, () => it("passes the conformance suite", () => undefined));
} else {
  it("has threads on a page that is cross-origin isolated, and relaxed SIMD", () => {
    expect(globalThis.crossOriginIsolated).toBe(true);
    expect(wasmAvailability({ threads: 2 })).toEqual({
      available: true,
      device: "WASM, relaxed SIMD, 2 threads",
      threads: 2,
      file: "kernels-relaxed-threads.wasm",
    });
  });
  const device = await wasmCpu({ threads: 2 });
  describeConformance({ describe, it, afterAll }, `${device.backend.device}, in Chromium`, device, {
    dtypes: ["f32", "i32", "u8"],
    filter: ({ suite }) => suite === "ops",
  });
}
