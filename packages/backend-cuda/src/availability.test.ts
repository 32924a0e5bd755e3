// What the backend says where something is missing, piece by piece, and that the addon loads where there is no driver.

import path from "node:path";
import { describe, expect, it } from "vitest";
import { type Addon, findAddon, type Probe, search } from "./addon.js";
import type { DeviceProperties } from "./context.js";
import { availabilityOf, cuda, cudaAvailability } from "./index.js";

const device = (computeCapability: number, name = "GPU"): DeviceProperties => ({
  name,
  computeCapability,
  multiprocessors: 100,
  sharedPerBlock: 227 * 1024,
  sharedPerMultiprocessor: 228 * 1024,
  l2Bytes: 2 ** 25,
  memoryBytes: 2 ** 36,
});

/** What is said of an addon that finds this. */
function whatOf(probe: Probe, kernels: string | undefined = "kernels") {
  const addon = { probe: () => probe } as Addon;
  return availabilityOf({ addon, path: "addon", kernels });
}

describe("cudaAvailability", () => {
  it("says that there is no driver, or what is wrong with it", () => {
    const missing = "the NVIDIA driver finds no GPU";
    expect(whatOf({ missing })).toMatchObject({ available: false, reason: missing, remedy: /install NVIDIA's driver/ });
  });

  it("says that there is no device, or none that is new enough", () => {
    expect(whatOf({ driver: 13000, devices: [] })).toMatchObject({ available: false, reason: /finds no GPU/ });
    expect(whatOf({ driver: 13000, devices: [device(75, "Tesla T4")] })).toMatchObject({
      available: false,
      reason: "Tesla T4 (sm_75): older than sm_80",
    });
  });

  it("says that there are no kernels", () => {
    const addon = { probe: () => ({ driver: 13000, devices: [device(90)] }) } as unknown as Addon;
    expect(availabilityOf({ addon, path: "addon", kernels: undefined })).toMatchObject({
      available: false,
      reason: "its kernels are not built",
      remedy: /nvcc/,
    });
  });

  it("lists the devices where all is there", () => {
    const found = whatOf({ driver: 13010, devices: [device(90, "NVIDIA H100"), device(80)] });
    expect(found).toMatchObject({ available: true, driver: "13.1", path: "addon" });
    expect(found.available && found.devices.map(({ name }) => name)).toEqual(["NVIDIA H100", "GPU"]);
  });

  it("names the file where the addon that was given is none", () => {
    const given = path.join(import.meta.dirname, "availability.test.ts");
    expect(search(given)).toMatchObject({
      addon: undefined,
      reason: expect.stringContaining(given),
      remedy: "correct or unset DIFFMAMBA_CUDA_ADDON",
    });
  });
});

const found = findAddon();

describe.skipIf(found.addon === undefined)(`the addon${found.addon === undefined ? `: ${found.reason}` : ""}`, () => {
  it("loads, and says the same as the backend does", async () => {
    const probe = (found.addon as Addon).probe();
    const availability = cudaAvailability();
    if (probe.missing !== undefined) {
      expect(probe.missing).toMatch(/NVIDIA driver/);
      expect(availability).toMatchObject({ available: false, reason: probe.missing });
    }
    if (availability.available) return;
    await expect(cuda()).rejects.toThrow(`cuda: ${availability.reason}; ${availability.remedy}.`);
  });

  it("refuses to open a device where there is none, and a device that was closed", () => {
    const addon = found.addon as Addon;
    const { missing } = addon.probe();
    if (missing !== undefined) expect(() => addon.open(0, new Uint8Array(16))).toThrow(missing);
    expect(() => addon.launch(99)).toThrow("the device was closed");
    expect(() => addon.allocate(99, 10)).toThrow("the device was closed");
  });
});
