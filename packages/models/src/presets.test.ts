// Presets and parameter counts, to the last digit of the paper's models, and the tables of lambda_init.

import { DiffMamba2, DiffS6Mamba2, lambdaInit } from "@diffmamba/differential";
import { currentDevice, type Device, reference, setCurrentDevice, shapesOnly } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ModelConfig } from "./config.js";
import { ConfigError } from "./configChecks.js";
import { countParameters } from "./count.js";
import { MambaLM } from "./model.js";
import { preset, presetNames } from "./presets.js";

let device: Device;
beforeAll(() => {
  device = shapesOnly();
});
afterAll(() => device.dispose());

/** A model without memory, freed at the end of `use`. */
function measured<T>(config: Partial<ModelConfig>, use: (model: MambaLM) => T): T {
  using model = MambaLM.create(config, { device });
  return use(model);
}

const sizeOf = (module: { parameterCount(): number }) => module.parameterCount();

describe("parameter counts", () => {
  it.each([
    ["mamba2", 6_451_888, 21_303_648, 127_821_888, 255_643_776],
    ["diffmamba2", 6_602_080, 21_604_032, 129_624_192, 259_248_384],
  ])("of the paper's small models with %s", (variant, mixer, triple, six, twelve) => {
    const [small, big] = [6, 12].map((n) => preset(`text8-${n}-${variant}`));
    measured(small, ({ backbone }) => {
      expect(backbone.mixers.map(sizeOf)).toEqual(new Array(12).fill(mixer));
      expect(backbone.sublayers.slice(0, 3).reduce((sum, one) => sum + sizeOf(one), 0)).toBe(triple);
      expect(sizeOf(backbone)).toBe(six);
    });
    measured(big, ({ backbone }) => expect(sizeOf(backbone)).toBe(twelve));
  });

  it("of the ablation with Diff-S6", () => {
    measured(preset("table2-diffs6mamba2-scalar"), ({ backbone }) => {
      expect(backbone.mixers.map(sizeOf)).toEqual(new Array(12).fill(7_726_625));
      expect(backbone.sublayers.slice(0, 3).reduce((sum, one) => sum + sizeOf(one), 0)).toBe(21_434_722);
      expect(sizeOf(backbone)).toBe(128_608_332);
    });
  });

  it.each([
    // The table, its biases, and three clusters that no token is in.
    ["text8", 27 * 1024 + 27 + 3 * 1025],
    ["enwik8", 204 * 1024 + 204 + 3 * 1025],
    ["wt103", 39_632_762],
  ])("of the embedding and softmax for %s", (name, count) => {
    measured(preset(`${name}-6-diffmamba2`), ({ vocabulary }) => expect(sizeOf(vocabulary)).toBe(count));
  });

  it.each([
    ["text8-6-diffmamba2", 129_654_942],
    // The control lacks the d numbers of lambda in each of its 12 or 24 mixers.
    ["text8-6-control", 129_654_942 - 12 * 1024],
    ["enwik8-6-control", 129_654_942 + (204 - 27) * 1025 - 12 * 1024],
    ["wt103-6-control", 169_256_954 - 12 * 1024],
    ["wt103-12-control", 298_881_146 - 24 * 1024],
    // Scalar instead of the sum of a vector: one number for d; without the norm after the subtraction, d less.
    ["table2-mamba2", 127_821_888 + 27 * 1024 + 27 + 3 * 1025],
    ["table2-control", 129_654_942 - 12 * 1024],
    ["table2-diffmamba2-vecsum", 129_654_942],
    ["table2-diffmamba2-scalar", 129_654_942 - 12 * 1023],
    ["table2-diffmamba2-vecsum-nosubln", 129_654_942 - 12 * 1024],
    ["table2-diffmamba2-scalar-nosubln", 129_654_942 - 12 * 2047],
    ["table2-diffs6mamba2-scalar", 128_608_332 + 27 * 864 + 27 + 3 * 865],
    ["wt103-6-mamba2", 167_454_650],
    ["wt103-6-diffmamba2", 169_256_954],
    ["wt103-12-mamba2", 295_276_538],
    ["wt103-12-diffmamba2", 298_881_146],
    ["mamba2-370m", 368_346_624],
    ["diffmamba2-370m-full", 382_666_752],
    ["diffmamba2-370m", 375_506_688],
    ["diffmamba2-370m-full-control", 382_666_752 - 48 * 1024],
    ["diffmamba2-370m-control", 375_506_688 - 24 * 1024],
    ["mamba-130m", 129_135_360],
    ["mamba2-130m", 128_989_632],
  ])("of %s", (name, count) => {
    expect(countParameters(preset(name))).toBe(count);
  });

  it("of the blocks of the 370M models", () => {
    const blocks = (name: string) => measured(preset(name), ({ backbone }) => backbone.sublayers.map(sizeOf));
    expect(blocks("mamba2-370m")).toEqual(new Array(48).fill(6_601_056));
    expect(blocks("diffmamba2-370m-full")).toEqual(new Array(48).fill(6_899_392));
    expect(blocks("diffmamba2-370m-full-control")).toEqual(new Array(48).fill(6_899_392 - 1024));
    const hybrid = Array.from({ length: 48 }, (_, i) => (i % 2 === 0 ? 6_899_392 : 6_601_056));
    expect(blocks("diffmamba2-370m")).toEqual(hybrid);
  });

  it("take no memory, and leave the current device as it was", async () => {
    await using own = reference();
    setCurrentDevice(own);
    countParameters(preset("mamba2-2.7b"));
    expect(currentDevice()).toBe(own);
    expect(own.memory()).toMatchObject({ tensors: 0, bytes: 0 });
  });
});

describe("lambda_init", () => {
  const initials = (name: string) =>
    measured(preset(name), ({ backbone }) =>
      backbone.sublayers.flatMap(({ layer }, i): [number, string][] =>
        layer instanceof DiffMamba2 || layer instanceof DiffS6Mamba2 ? [[i, layer.lambdaInit.toFixed(4)]] : [],
      ),
    );

  it.each(["text8-6-diffmamba2", "table2-diffs6mamba2-scalar"])("of %s counts every sublayer", (name) => {
    const table = ["1 0.2000", "2 0.3555", "4 0.5561", "5 0.6193", "7 0.7008", "8 0.7265", "10 0.7597", "11 0.7701"];
    const rest = ["13 0.7836", "14 0.7879", "16 0.7933", "17 0.7951"];
    expect(initials(name).map(([i, value]) => `${i + 1} ${value}`)).toEqual([...table, ...rest]);
  });

  it("of the 370M models counts blocks", () => {
    const hybrid = new Map(initials("diffmamba2-370m"));
    expect([...hybrid.keys()]).toEqual(Array.from({ length: 24 }, (_, i) => 2 * i));
    const table: [number, string][] = [
      [0, "0.2000"],
      [2, "0.4707"],
      [4, "0.6193"],
      [6, "0.7008"],
      [8, "0.7456"],
    ];
    for (const [block, value] of [...table, [46, "0.8000"] as const]) expect(hybrid.get(block)).toBe(value);
    expect(initials("diffmamba2-370m-full")).toHaveLength(48);
  });

  it("is 0.8 - 0.6 exp(-0.3 i)", () => {
    expect(lambdaInit(3)).toBeCloseTo(0.8 - 0.6 * Math.exp(-0.9), 15);
  });
});

describe("presets", () => {
  it.each(presetNames)("%s is a model", (name) => {
    const count = countParameters(preset(name));
    if (name.startsWith("markov-")) expect(count).toBeLessThan(3000);
    else expect(count).toBeGreaterThan(100e6);
  });

  it("are vanilla, differential and control for each of the paper's small models, and table 2's rows", () => {
    const runs = ["text8", "enwik8", "wt103"].flatMap((data) => [`${data}-6`, `${data}-12`]);
    for (const run of runs) {
      const [vanilla, differential, control] = ["mamba2", "diffmamba2", "control"].map((kind) =>
        preset(`${run}-${kind}`),
      );
      expect({ ...differential, variant: "mamba2" }).toEqual(vanilla);
      expect({ ...differential, lambda: "none" }).toEqual(control);
    }
    expect(presetNames.filter((name) => name.startsWith("table2-"))).toHaveLength(10);
  });

  it("carry the dropouts of the paper's runs", () => {
    const dropouts = ["wt103-6", "wt103-12", "text8-6", "text8-12", "enwik8-6", "enwik8-12"].map((run) => {
      const { dropout, embeddingDropout, headDropout } = preset(`${run}-diffmamba2`);
      return [dropout, embeddingDropout, headDropout];
    });
    expect(dropouts).toEqual([0.25, 0.5, 0.4, 0.5, 0.4, 0.5].map((dropout) => [dropout, 0.25, 0.25]));
  });

  it("are refused by name where there is none", () => {
    expect(() => preset("mamba3-370m")).toThrow(ConfigError);
    expect(() => preset("mamba3-370m")).toThrow(/no "mamba3-370m"; there are mamba-130m, /);
    expect(() => preset("toString")).toThrow(ConfigError);
  });
});
