// Layer: tools. The bundle, without a Node of its own: its programs run from its folder alone.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { root } from "./layers.mjs";

let scratch = "";
let bundle = "";

beforeAll(() => {
  scratch = mkdtempSync(path.join(os.tmpdir(), "diffmamba-bundle-test-"));
  bundle = path.join(scratch, "bundle");
  execFileSync(process.execPath, ["tools/bundle.mjs", bundle, "--node", "none"], { cwd: root, stdio: "ignore" });
}, 120_000);

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function start(program: string, ...args: string[]) {
  return spawnSync(path.join(bundle, program), args, { cwd: scratch, encoding: "utf8" });
}

it("starts both programs", () => {
  expect(start("bench", "--list").stdout).toContain("  webgpu ");
  expect(start("diffmamba", "--help").status).toBe(0);
});

it("holds the goldens, and runs them on a backend", () => {
  const { stdout, status } = start("bench", "check", "--backend", "reference", "--filter", "causal_conv1d_0");
  const none = start("bench", "check", "--backend", "reference", "--filter", "no such test");
  expect(none.status).toBe(2);
  expect(`${status} ${stdout}`).toMatch(/^0 [1-9]\d* passed, 0 failed/);
});

it("holds what WebGPU needs", () => {
  expect(existsSync(path.join(bundle, "node_modules/webgpu/dist/linux-x64/dawn.node"))).toBe(true);
});

it("refuses an unknown flag", () => {
  const { status } = spawnSync(process.execPath, ["tools/bundle.mjs", "--nothing"], { cwd: root });
  expect(status).toBe(2);
});
