// Layer: apps/bench, tests. What the suite of the WebGPU backend lists, and that all of it runs.
import { webgpuAvailability } from "@diffmamba/backend-webgpu/node";
import { expect, it } from "vitest";
import { bench } from "../../program.js";
import type { Row } from "../../row.js";
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
  "memory of a training run diffmamba2 d64 2 layers N16 P16 V256, 4x64 tokens, 2000 steps",
])("holds %s", (text) => {
  expect(texts).toContain(text);
});

it("reads and writes tensors of at least 256 MB where memory is what limits", () => {
  const { elements } = webgpu.settings;
  expect(4 * elements).toBeGreaterThanOrEqual(256e6);
  expect(texts).toContain(`add ${elements / 4096}x4096`);
});

it("gives rows for each case, where there is an adapter", { timeout: 400_000 }, async ({ skip }) => {
  const adapter = await webgpuAvailability();
  skip(!adapter.available, adapter.available ? "" : adapter.reason);
  const [out, notes]: [string[], string[]] = [[], []];
  const output = { stdout: (text: string) => out.push(text), stderr: (text: string) => notes.push(text) };
  const code = await bench(["webgpu", "--quick", "--json"], [webgpu], output);
  expect(notes.filter((line) => line.includes("failed") || line.includes("not measured"))).toEqual([]);
  expect(code).toBe(0);
  const rows = JSON.parse(out.join("")) as Row[];
  // A line as soon as there is a row: a run that is ended half-way has told it.
  expect(notes.filter((line) => line.startsWith("    "))).toHaveLength(rows.length);
  const cases = webgpu.cases({ ...webgpu.settings, ...webgpu.quick }, []);
  const seen = new Set(rows.map(({ shape }) => shape));
  expect(cases.filter(({ shape }) => !seen.has(shape))).toEqual([]);
});
