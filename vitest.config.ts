// Layer: root. How every test runs: sources, not builds, through the condition `@diffmamba/source`.
// The workspace's packages are pure, so their tests share a thread; apps and tools start processes,
// so theirs have one each, and run one group after the other so that timings do not disturb each other.
import { defineConfig } from "vitest/config";

const conditions = ["@diffmamba/source", "module", "node", "development|production"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: "packages",
          sequence: { groupOrder: 0 },
          include: ["packages/*/src/**/*.test.ts"],
          pool: "threads",
          isolate: false,
        },
      },
      {
        extends: true,
        test: { name: "apps", sequence: { groupOrder: 1 }, include: ["apps/*/src/**/*.test.ts"], pool: "forks" },
      },
      {
        extends: true,
        test: { name: "tools", sequence: { groupOrder: 2 }, include: ["tools/**/*.test.ts"], pool: "forks" },
      },
    ],
  },
});
