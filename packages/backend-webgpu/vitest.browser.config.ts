// Layer: tests of backend-webgpu. The conformance suite in headless Chromium, on a page that is cross-origin isolated; where there is no
// Chromium the same file runs in Node, and says by name that it is skipped.
import { existsSync } from "node:fs";
import { playwright } from "@vitest/browser-playwright";

const conditions = ["@diffmamba/source", "module", "browser", "development|production"];
const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = places.find((file) => existsSync(file));

export default {
  resolve: { conditions },
  server: {
    headers: { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" },
  },
  test: {
    name: "webgpu in Chromium",
    sequence: { groupOrder: 1 },
    maxWorkers: 1,
    include: ["src/**/*.browser.test.ts"],
    testTimeout: 240_000,
    hookTimeout: 60_000,
    ...(executablePath !== undefined && {
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        instances: [{ browser: "chromium" as const }],
        provider: playwright({
          launchOptions: {
            executablePath,
            args: [
              ...["--no-sandbox", "--enable-unsafe-webgpu", "--enable-features=Vulkan"],
              // As in Node (src/node.ts): on a driver on the processor, without a GPU, shaders compile in a third of the time.
              "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
            ],
          },
        }),
      },
    }),
  },
};
