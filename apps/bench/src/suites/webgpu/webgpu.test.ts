// Layer: apps/bench, tests. What the suite of the WebGPU backend lists.
import { expect, it } from "vitest";
import { caseText } from "../../runner.js";
import { webgpu } from "../webgpu.js";

const texts = webgpu.cases(webgpu.settings, []).map(caseText);

it("lists each case once", () => {
  expect(new Set(texts).size).toBe(texts.length);
});

it.each([
  "matmul nn 4096x4096x4096 cube",
  "matmul nt 16384x768x3352 in-projection",
  "matmul tn 768x16384x1536 out-projection, gradient of W",
  "selectiveScan forward B8 L2048 D1536 N16",
  "ssdScan forward+backward B8 L2048 H24 P64 N128",
  "mamba2 step d768 24 layers N128 P64 V50288, 8x1024 tokens",
  "mamba2 decode d768 24 layers N128 P64 V50288, batch 1",
])("holds %s", (text) => {
  expect(texts).toContain(text);
});

it("reads and writes tensors of at least 256 MB where memory is what limits", () => {
  const { elements } = webgpu.settings;
  expect(4 * elements).toBeGreaterThanOrEqual(256e6);
  expect(texts).toContain(`add ${elements / 4096}x4096`);
});
