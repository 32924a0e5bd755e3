// Layer: apps/playground. How the page is served and bundled: from the sources of the packages, and isolated from other origins, so that
// WASM may compute on threads.
import { defaultClientConditions, defineConfig } from "vite";

/** What a page needs to be cross-origin isolated: a server that the built page is put on has to send these too. */
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  base: "./",
  resolve: { conditions: ["@diffmamba/source", ...defaultClientConditions] },
  // `using` is written for browsers that do not know it yet.
  build: {
    outDir: "build",
    target: "es2022",
    chunkSizeWarningLimit: 1000,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  worker: { format: "es", rolldownOptions: { checks: { pluginTimings: false } } },
  server: { headers },
  preview: { headers },
});
