// Layer: apps/playground, worker. Which backend is opened where no browser is: there is no WebGPU, and WebAssembly where it was built.
import { describe, expect, it } from "vitest";
import { backendReports, openBackend } from "./backends.js";

describe("the backends", () => {
  it("say whether they work here, and why not", async () => {
    expect(await backendReports()).toEqual([
      { name: "webgpu", title: "WebGPU", available: false, reason: "this browser has no WebGPU", software: false },
      { name: "wasm", title: "WebAssembly", available: true, reason: "", software: false },
      { name: "reference", title: "JavaScript", available: true, reason: "", software: false },
    ]);
  });

  it("open the one that is asked for, without a word", async () => {
    const opened = await openBackend("reference", {});
    expect(opened).toMatchObject({ name: "reference", title: "JavaScript" });
    expect(opened.note).toBeUndefined();
    await opened.device.dispose();
  });

  it("open the next best where the one that is asked for does not work, and say why", async () => {
    const { name, note, device } = await openBackend("webgpu", { threads: 1 });
    expect(["wasm", "reference"]).toContain(name);
    expect(note).toBe("WebGPU does not work here: this browser has no WebGPU");
    await device.dispose();
  });

  it("tell of one that should have worked", async () => {
    const { name, note, device } = await openBackend(undefined, { threads: 0.5 });
    expect(name).toBe("reference");
    expect(note).toContain("WebAssembly does not work here: cpu: 0.5 threads; it must be a whole number");
    await device.dispose();
  });
});
