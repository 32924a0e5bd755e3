import { memoryFiles } from "@diffmamba/files/memory";
import { Build, convertArray } from "@diffmamba/nn";
import { RandomStream } from "@diffmamba/random";
import { Mamba2 } from "@diffmamba/ssm";
import { type Device, type HostTensor, linear, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ModelConfig, modelConfig } from "./config.js";
import { type ConvertOptions, convertToDifferential } from "./convert.js";
import { SafetensorsFile, writeSafetensors } from "./formats/index.js";
import { MambaLM } from "./model.js";
import { sliceEnds } from "./slicing.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const small: Partial<ModelConfig> = {
  variant: "mamba2",
  vocabSize: 11,
  dModel: 16,
  nLayers: 2,
  dState: 4,
  headDim: 8,
  chunkSize: 4,
  initializerRange: 1,
};

/** Rows [from, to) of a published tensor, as numbers. */
function rows({ shape, data }: HostTensor, from: number, to: number): number[] {
  const width = data.length / shape[0];
  return Array.from(data.subarray(from * width, to * width) as ArrayLike<number>);
}

const get = (tensors: ReadonlyMap<string, HostTensor>, name: string): HostTensor => {
  const found = tensors.get(name);
  if (found === undefined) throw new Error(`no ${name} among ${[...tensors.keys()].join(", ")}`);
  return found;
};

/** A vanilla model with every parameter away from its first value. */
async function parentOf(config: Partial<ModelConfig>, dtype: "f64" | "f32" = "f64") {
  const model = MambaLM.create({ ...small, ...config }, { device, dtype, seed: 5 });
  for (const [i, parameter] of model.parameters().entries()) {
    const noise = new RandomStream(i, "noise").normal(new Float64Array(parameter.size), 0, 0.2);
    using tensor = device.from(noise, parameter.shape, "f64");
    using own = tensor.cast(dtype).alias();
    parameter.addInPlace(own);
  }
  return { model, tensors: await model.stateDict() };
}

async function childOf(parent: MambaLM, tensors: ReadonlyMap<string, HostTensor>, options: ConvertOptions) {
  const { dtype } = parent.parameters()[0];
  const converted = await convertToDifferential(tensors, parent.config, options);
  const model = MambaLM.create(converted.config, { device, dtype });
  model.loadStateDict(converted.tensors);
  return { model, ...converted };
}

async function relativeError(actual: Tensor, expected: Tensor): Promise<number> {
  const [a, b] = [await actual.data(), await expected.data()];
  let difference = 0;
  let size = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(difference / size);
}

describe("the reference's slicing", () => {
  it("cuts the 370M model's rows as the released code does, misaligned as they are", () => {
    const numbered = (count: number): HostTensor => ({
      dtype: "i32",
      shape: [count],
      data: Int32Array.from({ length: count }, (_, i) => i),
    });
    const part = (tensor: HostTensor, size: number, branch: 0 | 1) => {
      const { data } = sliceEnds(tensor, [size], branch);
      return (from: number, to: number) => [data[from], data[to - 1], to - from];
    };
    // The parent: z 0:2048, x 2048:4096, B 4096:4224, C 4224:4352, dt 4352:4384. A branch: z 1024, x 1024, B and C
    // 128 each, dt 32.
    const first = part(numbered(4384), 2336, 0);
    expect(first(0, 1024)).toEqual([0, 1023, 1024]); // z from z[0:1024]
    expect(first(1024, 2048)).toEqual([1024, 2047, 1024]); // x from z[1024:2048]
    expect(first(2048, 2304)).toEqual([2048, 2303, 256]); // B, C from x[0:256]
    expect(first(2304, 2336)).toEqual([2304, 2335, 32]); // dt from x[256:288]
    const second = part(numbered(4384), 2336, 1);
    expect(second(0, 1024)).toEqual([2048, 3071, 1024]); // z from x[0:1024]
    expect(second(1024, 2048)).toEqual([3072, 4095, 1024]); // x from x[1024:2048]
    expect(second(2048, 2336)).toEqual([4096, 4383, 288]); // B, C, dt their own
    expect(part(numbered(2304), 1280, 0)(0, 1280)).toEqual([0, 1279, 1280]); // convolution: of x alone
    expect(part(numbered(2304), 1280, 1)(0, 1280)).toEqual([1024, 2303, 1280]); // convolution: aligned
  });

  it("takes first and last slices of what differs in shape, and copies the rest to both", async () => {
    const { model, tensors } = await parentOf({ dModel: 32 });
    const { tensors: out, config } = await convertToDifferential(tensors, model.config, {
      slicing: "reference",
      seed: 3,
    });
    expect(config).toEqual({ ...model.config, variant: "diffmamba2", pattern: "alternate" });
    const parent = (name: string) => get(tensors, `backbone.layers.0.mixer.${name}`);
    const branch = (i: number, name: string) => get(out, `backbone.layers.0.mixer_${i}.${name}`);
    // 64 channels, 8 heads of 8, N 4: rows z 0:64, x 64:128, B, C 128:136, dt 136:144; a branch has 80.
    expect(rows(branch(1, "in_proj.weight"), 0, 80)).toEqual(rows(parent("in_proj.weight"), 0, 80));
    expect(rows(branch(2, "in_proj.weight"), 0, 80)).toEqual(rows(parent("in_proj.weight"), 64, 144));
    for (const name of ["conv1d.weight", "conv1d.bias"]) {
      expect(rows(branch(1, name), 0, 40)).toEqual(rows(parent(name), 0, 40));
      expect(rows(branch(2, name), 0, 40)).toEqual(rows(parent(name), 32, 72));
    }
    expect(branch(1, "conv1d.weight").shape).toEqual([40, 1, 4]);
    expect(rows(branch(1, "norm.weight"), 0, 32)).toEqual(rows(parent("norm.weight"), 0, 32));
    expect(rows(branch(2, "norm.weight"), 0, 32)).toEqual(rows(parent("norm.weight"), 32, 64));
    for (const [row, i] of [
      [0, 1],
      [31, 2],
    ]) {
      const whole = rows(parent("out_proj.weight"), row, row + 1);
      expect(rows(branch(i, "out_proj.weight"), row, row + 1)).toEqual(i === 1 ? whole.slice(0, 32) : whole.slice(32));
    }
    for (const name of ["A_log", "D", "dt_bias"]) {
      for (const i of [1, 2]) expect(branch(i, name)).toEqual(parent(name));
    }
    expect(get(out, "backbone.layers.0.subln.weight").data).toEqual(new Float64Array(32).fill(1));
    const drawn = new RandomStream(3, "backbone.layers.0.lambda_q1").normal(new Float64Array(32));
    expect(get(out, "backbone.layers.0.lambda_q1").data).toEqual(drawn);
    for (const name of [
      "backbone.layers.0.norm.weight",
      "backbone.layers.1.mixer.in_proj.weight",
      "backbone.norm_f.weight",
    ]) {
      expect(get(out, name)).toEqual(get(tensors, name));
    }
  });
});

describe("semantic slicing", () => {
  const shapes: [string, Partial<ModelConfig>, ConvertOptions][] = [
    ["vecsum", {}, { lambda: "vecsum" }],
    ["scalar", { convBias: false }, { lambda: "scalar" }],
    ["channel, D by channel", { dHasHeadDim: true }, { lambda: "channel" }],
    ["none, two groups", { nGroups: 2 }, { lambda: "none" }],
    ["learned initial states", { learnableInitialState: true, dtLimit: [0.01, 0.5] }, { lambda: "scalar", seed: 8 }],
    ["post-norm", { residual: "post", norm: "layer", feedForward: 1, lambdaIndex: "sublayer" }, { lambda: "vecsum" }],
  ];

  it.each(shapes)("keeps the model's function without norms: %s", async (_, config, options) => {
    const { model, tensors } = await parentOf({ ...config, rmsNorm: false, nLayers: 3 });
    for (const pattern of ["all", [1]] as const) {
      const child = await childOf(model, tensors, { ...options, pattern, subln: false });
      const tokens = model.tokens([[1, 2, 3, 4, 5, 6, 7, 8, 9]]);
      using expected = model.forward(tokens);
      using actual = child.model.forward(tokens);
      expect(await relativeError(actual, expected)).toBeLessThan(1e-12);
      child.model.dispose();
    }
  });

  it("keeps it in f32 within rounding", async () => {
    const { model, tensors } = await parentOf({ rmsNorm: false }, "f32");
    const child = await childOf(model, tensors, { pattern: "all", lambda: "scalar", subln: false });
    const tokens = model.tokens([[1, 2, 3, 4, 5, 6, 7, 8, 9]]);
    using expected = model.forward(tokens);
    using actual = child.model.forward(tokens);
    expect(await relativeError(actual, expected)).toBeLessThan(1e-5);
  });

  it("with the gated norm is the parent with its norm over each half of the heads' channels; subln norms that", async () => {
    const { model, tensors } = await parentOf({ nLayers: 1 });
    const [dModel, heads, headDim] = [16, 4, 8];
    // The parent up to its norm: gated, not normed.
    using bare = new Mamba2(
      { dModel, dState: 4, headDim, chunkSize: 4, rmsNorm: false },
      new Build({ device, dtype: "f64" }),
    );
    const own = "backbone.layers.0.mixer.";
    const named = [...tensors].filter(([name]) => name.startsWith(own) && !name.includes("norm"));
    bare.loadStateDict(new Map(named.map(([name, tensor]) => [name.slice(own.length), tensor])));
    const load = (name: string) => device.fromHost(get(tensors, own + name));
    const input = new RandomStream(1, "input").normal(new Float64Array(2 * 9 * dModel));
    const x = device.from(input, [2, 9, dModel], "f64");
    const v = bare.mix(x).y.reshape(2, 9, heads, 2, headDim / 2);
    const normed = v.mul(v.square().mean([2, 4], true).add(1e-5).rsqrt()).reshape(2, 9, heads * headDim);
    const expected = linear(normed.mul(load("norm.weight")), load("out_proj.weight"));

    const mixerOf = async (subln: boolean) => {
      const child = await childOf(model, tensors, { pattern: "all", lambda: "vecsum", subln, seed: 2 });
      return child.model.backbone.mixers[0];
    };
    expect(await relativeError((await mixerOf(false)).forward(x), expected)).toBeLessThan(1e-12);
    const scale = expected
      .square()
      .mean(-1, true)
      .add(1e-5)
      .rsqrt()
      .mul(1 - 0.2);
    expect(await relativeError((await mixerOf(true)).forward(x), expected.mul(scale))).toBeLessThan(1e-12);
    // It is not the parent itself: the statistics differ.
    expect(await relativeError(model.backbone.mixers[0].forward(x), expected)).toBeGreaterThan(1e-3);
  });

  it("draws lambda by the seed alone, as a new model of that seed would", async () => {
    const { model, tensors } = await parentOf({});
    const name = "backbone.layers.0.lambda_q1";
    const draw = async (seed: number) =>
      get((await convertToDifferential(tensors, model.config, { seed })).tensors, name);
    expect(await draw(4)).toEqual(await draw(4));
    expect(await draw(4)).not.toEqual(await draw(5));
    using fresh = MambaLM.create({ ...model.config, variant: "diffmamba2" }, { device, dtype: "f64", seed: 4 });
    expect(await draw(4)).toEqual((await fresh.stateDict()).get(name));
  });

  it("keeps the types of a half-precision model, in which A, D, dt and lambda are f32", async () => {
    const parent = MambaLM.create(small, { device, dtype: "bf16", seed: 5 });
    const { tensors, config } = await convertToDifferential(await parent.stateDict(), parent.config, {
      pattern: "all",
    });
    const child = await MambaLM.create(config, { device, dtype: "bf16" }).stateDict();
    const types = (map: ReadonlyMap<string, HostTensor>) =>
      [...map].map(([name, { dtype }]) => `${name} ${dtype}`).sort();
    expect(types(tensors)).toEqual(types(child));
    expect(types(tensors)).toContain("backbone.layers.0.mixer_1.A_log f32");
  });

  it("takes tensors from a file, and keeps their type", async () => {
    const { model, tensors } = await parentOf({}, "f32");
    const half = [...tensors].map(([name, tensor]): [string, HostTensor] => {
      return [name, { ...tensor, dtype: "bf16", data: convertArray(tensor.data, "f32", "bf16") }];
    });
    const files = memoryFiles();
    await writeSafetensors(files, "model.safetensors", half);
    const file = await SafetensorsFile.open(files, "model.safetensors");
    const fromFile = await convertToDifferential(file, model.config, { seed: 4 });
    expect(new Set([...fromFile.tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set(["bf16"]));
    expect(fromFile).toEqual(await convertToDifferential(new Map(half), model.config, { seed: 4 }));
  });
});

describe("what cannot be converted", () => {
  const convert = async (config: Partial<ModelConfig>, options: ConvertOptions = {}) => {
    const { model, tensors } = await parentOf(config);
    return convertToDifferential(tensors, model.config, options);
  };

  it("is named", async () => {
    await expect(convert({ variant: "mamba" })).rejects.toThrow('variant: "mamba"; only a vanilla "mamba2" can be');
    await expect(convert({ variant: "diffmamba2" })).rejects.toThrow('variant: "diffmamba2"; only a vanilla');
    await expect(convert({ bias: true })).rejects.toThrow("bias: true; a differential Mamba-2 mixer has no biases");
    await expect(convert({ headDim: 1 })).rejects.toThrow(/^headDim: 1/);
    await expect(convert({}, { pattern: [2] })).rejects.toThrow(/pattern: .*2/);
  });

  it("is no model whose pattern leaves every layer vanilla", async () => {
    const { config } = await convert({ variant: "diffmamba2", pattern: "none" }, { pattern: "all" });
    expect(config.pattern).toBe("all");
  });

  it("names a tensor that is missing, unknown or of another shape", async () => {
    const { model, tensors } = await parentOf({});
    const without = new Map(tensors);
    without.delete("backbone.norm_f.weight");
    await expect(convertToDifferential(without, model.config)).rejects.toThrow("backbone.norm_f.weight is missing");
    const more = new Map(tensors).set("extra", get(tensors, "backbone.norm_f.weight"));
    await expect(convertToDifferential(more, model.config)).rejects.toThrow("the tensor extra is unknown");
    const other = modelConfig({ ...model.config, dState: 8 });
    await expect(convertToDifferential(tensors, other)).rejects.toThrow(
      /in_proj.weight is \(76, 16\); its model has \(84, 16\)/,
    );
  });

  it("leaves nothing on any device", async () => {
    const { model, tensors } = await parentOf({});
    const before = device.memory().tensors;
    await convertToDifferential(tensors, model.config);
    expect(device.memory().tensors).toBe(before);
  });
});
