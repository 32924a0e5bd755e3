// Layer: root. How every test runs: sources, not builds, through the condition `@diffmamba/source`.
// The workspace's packages are pure, so their tests share a thread or two; apps and tools start processes,
// so theirs have one each, and run one group after the other so that timings do not disturb each other.
import { existsSync, readdirSync } from "node:fs";
import os from "node:os";
import process from "node:process";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const conditions = ["@diffmamba/source", "module", "node", "development|production"];

/** Where Vulkan drivers are installed, and Debian's Chromium keeps one that computes on the processor. */
const driverFolders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
const softwareDriver = "/usr/lib/chromium/vk_swiftshader_icd.json";

// Without any other driver WebGPU is tested on that one. Dawn reads the variable when it is loaded, in a process of a worker.
const hasDriver = driverFolders.some((folder) => existsSync(folder) && readdirSync(folder).length > 0);
if (!hasDriver && existsSync(softwareDriver)) process.env.VK_ICD_FILENAMES ??= softwareDriver;

/** Files that take longest for their size, by which files are ordered: begun last, one would go on when all others are done. */
const longest = /\/(e2e|probes\/markov|sameSeed|pack|real|train\/src\/node|tokenizer\/src\/goldens)\.test\.ts$/;

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = (file: TestSpecification) => longest.test(file.moduleId);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // What tests start mostly waits for something, so two at once are not too many for two cores.
    maxWorkers: Math.max(2, os.availableParallelism() - 1),
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: "packages",
          sequence: { groupOrder: 0 },
          include: ["packages/*/src/**/*.test.ts"],
          exclude: ["packages/backend-webgpu/**", "packages/*/src/**/*.browser.test.ts"],
          pool: "threads",
          isolate: false,
        },
      },
      {
        extends: true,
        test: {
          // Dawn lives as long as its process, which all files share; beside it run those of the browser.
          name: "webgpu",
          sequence: { groupOrder: 1 },
          include: ["packages/backend-webgpu/src/**/*.test.ts"],
          exclude: ["packages/backend-webgpu/src/**/*.browser.test.ts"],
          pool: "forks",
          isolate: false,
          maxWorkers: 1,
          setupFiles: ["packages/backend-webgpu/src/waiting.testing.ts"],
          // Drivers on the processor compile for long.
          testTimeout: 240_000,
        },
      },
      "packages/backend-webgpu/vitest.browser.config.ts",
      "packages/backend-cpu/vitest.browser.config.ts",
      {
        extends: true,
        test: { name: "apps", sequence: { groupOrder: 2 }, include: ["apps/*/src/**/*.test.ts"], pool: "forks" },
      },
      {
        extends: true,
        test: { name: "tools", sequence: { groupOrder: 3 }, include: ["tools/**/*.test.ts"], pool: "forks" },
      },
    ],
  },
});
