// Layer: apps/cli, tests. What `doctor` says of a GPU that cannot be reached.
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Workplace, workplace } from "./command.testing.js";

interface Doctor {
  readonly backends: readonly { readonly name: string; readonly available: boolean; readonly reason: string | null }[];
}

let place: Workplace;
beforeAll(() => {
  place = workplace();
});
afterAll(() => place.dispose());

describe.runIf(process.platform === "linux")("doctor on Linux", () => {
  it("names the Vulkan drivers that are missing, and what to install", async () => {
    const { backends } = await place.json<Doctor>(["doctor"], { VK_ICD_FILENAMES: "/nowhere/icd.json" });
    const webgpu = backends.find(({ name }) => name === "webgpu");
    expect(webgpu?.available).toBe(false);
    // Without the loader, that it is missing comes first.
    expect(webgpu?.reason).toMatch(
      /apt-get install (libvulkan1|chromium)|VK_ICD_FILENAMES names .*\/nowhere\/icd\.json/,
    );
  });
});
