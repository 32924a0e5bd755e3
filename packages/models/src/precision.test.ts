// Layer: models, tests of mixed precision: every parameter of every variant has a gradient, near that of f32, whatever it is folded into.
import { decayGroups } from "@diffmamba/nn";
import { type Device, reference, valueAndGrad } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelConfig } from "./config.js";
import { MambaLM } from "./model.js";

const sizes: Partial<ModelConfig> = { vocabSize: 19, dModel: 16, nLayers: 2, dState: 4, headDim: 8, chunkSize: 4 };
const adaptive = { cutoffs: [5, 11], divValue: 2 };
const configs: Partial<ModelConfig>[] = [
  { variant: "mamba" },
  { variant: "mamba2", nGroups: 2, tieEmbeddings: false },
  { variant: "mamba2", rmsNorm: false, learnableInitialState: true, bias: true },
  { variant: "diffmamba", lambdaIndex: "sublayer" },
  { variant: "diffmamba2" },
  { variant: "diffmamba2", lambda: "channel", pattern: "alternate" },
  { variant: "diffmamba2", lambda: "none", subln: false },
  { variant: "diffs6" },
  { variant: "diffs6mamba2" },
  { variant: "diffmamba2e" },
  { variant: "mamba2", residual: "post", norm: "layer", feedForward: 2 },
  { variant: "diffmamba2", residual: "post", norm: "rms", mixersPerBlock: 2, feedForward: 2 },
  { variant: "mamba2", adaptive },
];

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

/** Loss and gradients of a model of these first values that computes in a type. */
async function differentiate(config: Partial<ModelConfig>, compute: "f32" | "bf16" | "f16") {
  const model = MambaLM.create({ ...sizes, ...config }, { device, seed: 5, ...(compute !== "f32" && { compute }) });
  const rows = [0, 1, 2].map((row) => Array.from({ length: 10 }, (_, i) => (7 * i + 5 * row + i * i) % 19));
  const tokens = model.tokens(rows.map((row) => row.slice(0, 9)));
  const targets = model.tokens(rows.map((row) => row.slice(1)));
  const names = [...model.namedParameters()];
  const leaves = names.map(([, parameter]) => parameter.compute);
  const scale = compute === "f16" ? 1024 : 1;
  const { value, gradients } = valueAndGrad(() => model.loss(tokens, targets).mul(scale), leaves);
  const read = await Promise.all(gradients.map(async (tensor) => Array.from(await tensor.data(), (g) => g / scale)));
  const result = {
    loss: (await value.item()) / scale,
    gradients: new Map(names.map(([name], i) => [name, read[i]])),
    types: new Map(names.map(([name], i) => [name, leaves[i].dtype])),
    masters: new Set(model.parameters().map(({ dtype }) => dtype)),
    groups: decayGroups(model, 0.1).length,
  };
  model.dispose();
  return result;
}

const norm = (values: readonly number[]) => Math.hypot(...values);

describe.each(["bf16", "f16"] as const)("mixed precision in %s", (compute) => {
  it.each(configs)("gives every parameter a gradient near that of f32: %j", async (config) => {
    const full = await differentiate(config, "f32");
    const mixed = await differentiate(config, compute);
    expect(mixed.loss / full.loss).toBeCloseTo(1, 2);
    expect(mixed.masters).toEqual(new Set(["f32"]));
    const total = norm([...full.gradients.values()].map(norm));
    for (const [name, expected] of full.gradients) {
      const actual = mixed.gradients.get(name) ?? [];
      const difference = norm(actual.map((g, i) => g - expected[i]));
      // Of a gradient that is next to nothing beside all others, rounding may be a larger share.
      expect(difference, name).toBeLessThan(0.08 * norm(expected) + 0.004 * total);
      if (norm(expected) > 1e-4 * total) expect(norm(actual), name).toBeGreaterThan(0);
    }
  });

  it("keeps what is delicate in f32, and folds weights in it", async () => {
    const { types } = await differentiate({ variant: "diffmamba2" }, compute);
    const wide = [...types].filter(([, type]) => type === "f32").map(([name]) => name.replace(/^.*layers\.\d+\./, ""));
    expect(new Set(wide)).toEqual(
      new Set(["inner.dt_bias", "inner.A_log", "inner.D", "inner.out_proj.weight", "lambda_q1", "subln.weight"]),
    );
    expect(types.get("backbone.embeddings.weight")).toBe(compute);
  });
});
