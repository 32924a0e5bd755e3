import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { nodeFiles } from "@diffmamba/files/node";
import { reference } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { type GoldenFolder, openGoldens } from "./goldens/golden.js";
import { goldenTests } from "./goldens/run.js";

const fixtures = fileURLToPath(new URL("../fixtures/goldens", import.meta.url));

// Another folder of the same forms, relative to where the command was given.
const given = process.env.DIFFMAMBA_GOLDENS || undefined;
const folderPath = given === undefined ? fixtures : path.resolve(process.env.INIT_CWD ?? process.cwd(), given);

let folder: GoldenFolder | undefined;
let problem: unknown;
try {
  folder = await openGoldens(nodeFiles(), folderPath);
} catch (error) {
  problem = error;
}

describe(given === undefined ? "the goldens" : `the goldens of DIFFMAMBA_GOLDENS=${given}`, () => {
  const device = reference({ poison: true });
  afterAll(() => device.dispose());

  it("lie in a folder with .safetensors files", () => {
    if (problem !== undefined) throw problem;
  });

  for (const test of folder === undefined ? [] : goldenTests(folder, ["f64", "f32"])) {
    it(test.name, async () => {
      const before = device.memory().tensors;
      await test.run(device);
      expect(device.memory().tensors - before, "tensors left behind").toBe(0);
    });
  }

  if (given === undefined) {
    it("are all there", () => {
      const index: Record<string, unknown> = JSON.parse(readFileSync(path.join(fixtures, "index.json"), "utf8"));
      const names = Object.keys(index).map((name) => `${name}.safetensors`);
      expect(folder?.tensors).toEqual(expect.arrayContaining(names));
      expect(folder?.models).toEqual(["hf_diffmamba2_tiny", "hf_mamba2_tiny", "hf_mamba_tiny"]);
      for (const model of folder?.models ?? []) expect(folder?.tensors).toContain(`${model}_io.safetensors`);
    });
  }
});
