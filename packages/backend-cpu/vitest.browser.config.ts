// Layer: tests of backend-cpu. The conformance suite on the WebAssembly build in headless Chromium, on a page that is cross-origin
// isolated; where there is no Chromium the same file runs in Node, and says by name that it is skipped.
import { existsSync } from "node:fs";
import path from "node:path";
import { playwright } from "@vitest/browser-playwright";
import { defineProject } from "vitest/config";

const conditions = ["@diffmamba/source", "module", "browser", "development|production"];
const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = places.find((file) => existsSync(file));

export default defineProject({
  resolve: { conditions },
  server: {
    headers: { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" },
  },
  test: {
    name: "WASM in Chromium",
    sequence: { groupOrder: 1 },
    maxWorkers: 1,
    include: ["src/**/*.browser.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    provide: { wasmIsBuilt: existsSync(path.join(import.meta.dirname, "wasm/kernels-simd.wasm")) },
    ...(executablePath !== undefined && {
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        instances: [{ browser: "chromium" as const }],
        provider: playwright({ launchOptions: { executablePath, args: ["--no-sandbox"] } }),
      },
    }),
  },
});
