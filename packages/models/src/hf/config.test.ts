// The forms of config.json: what each key becomes, what is refused, and in which form a model is saved.

import { describe, expect, it } from "vitest";
import { type ModelConfig, modelConfig } from "../config.js";
import { FormatError, type JsonObject, parseLooseJson, stringifyLooseJson } from "../formats/index.js";
import { tinyModels } from "../tiny.testing.js";
import { readConfig, writeConfig } from "./config.js";

const path = "m/config.json";
const read = (json: JsonObject) => readConfig(json, path);

const mamba = { model_type: "mamba", vocab_size: 96, hidden_size: 32, num_hidden_layers: 3 };
const mamba2 = { ...mamba, model_type: "mamba2", num_heads: 4, head_dim: 16, n_groups: 1 };
const diffmamba2 = { ...mamba2, diffmamba: true, diffmamba_settings: "alternate" };
const original = { d_model: 32, n_layer: 3, vocab_size: 50277 };

describe("reading", () => {
  it("mamba, with the defaults of the library's class", () => {
    const wanted: Partial<ModelConfig> = {
      variant: "mamba",
      vocabSize: 96,
      dModel: 32,
      nLayers: 3,
      dState: 16,
      dtRank: 0,
      tieEmbeddings: true,
      initializerRange: 0.1,
      rescaleResidual: false,
      residual: "pre",
      norm: "rms",
    };
    expect(read(mamba)).toEqual(modelConfig(wanted));
    expect(read({ ...mamba, time_step_rank: 2 }).dtRank).toBe(0);
    expect(read({ ...mamba, time_step_rank: "auto", intermediate_size: 64 }).dtRank).toBe(0);
    expect(read({ ...mamba, time_step_rank: 5, use_bias: true, use_conv_bias: false, state_size: 8 })).toMatchObject({
      dtRank: 5,
      bias: true,
      convBias: false,
      dState: 8,
    });
  });

  it("mamba2, with the defaults of the library's class", () => {
    const wanted: Partial<ModelConfig> = {
      variant: "mamba2",
      vocabSize: 96,
      dModel: 32,
      nLayers: 3,
      dState: 128,
      headDim: 16,
      chunkSize: 256,
      aInit: "range",
      tieEmbeddings: false,
      initializerRange: 0.1,
      rescaleResidual: false,
    };
    expect(read(mamba2)).toEqual(modelConfig(wanted));
  });

  it("mamba2 of several groups, whose gated norm is one in the library's class", () => {
    expect(read({ ...mamba2, n_groups: 2 })).toMatchObject({ nGroups: 2, normGroups: 1 });
    const { n_groups: _, ...without } = mamba2;
    expect(() => read({ ...without })).toThrow("nGroups: 8; it must be a divisor of the 4 heads");
  });

  it.each([
    ["[0.0, Infinity]", [0, null]],
    ['[0.0, {"__float__": "Infinity"}]', [0, null]],
    ["[0.01, 0.5]", [0.01, 0.5]],
    ["null", [0, null]],
  ])("a time_step_limit of %s", (text, limit) => {
    const json = { ...mamba2, time_step_limit: parseLooseJson(text, path) };
    expect(read(json).dtLimit).toEqual(limit);
  });

  it.each(["alternate", "all", "quarter"])("diffmamba2, %s", (settings) => {
    const config = read({ ...diffmamba2, diffmamba_settings: settings });
    expect(config).toMatchObject({ variant: "diffmamba2", pattern: settings, lambda: "vecsum", subln: true });
    expect(config).toMatchObject({ headDim: 16, expand: 2, lambdaIndex: "mixer" });
  });

  it("the original form of Mamba", () => {
    const ssm = { d_state: 8, expand: 1, dt_rank: "auto", conv_bias: false, use_fast_path: true, dt_init: "random" };
    const config = read({ ...original, ssm_cfg: ssm, rms_norm: true, residual_in_fp32: true, fused_add_norm: true });
    const wanted: Partial<ModelConfig> = {
      variant: "mamba",
      vocabSize: 50280,
      dModel: 32,
      nLayers: 3,
      dState: 8,
      expand: 1,
      convBias: false,
    };
    expect(config).toEqual(modelConfig(wanted));
    expect(read(original)).toMatchObject({ variant: "mamba", dState: 16, tieEmbeddings: true, rescaleResidual: true });
  });

  it("the original form of Mamba-2", () => {
    const ssm = { layer: "Mamba2", headdim: 16, ngroups: 2, d_ssm: 64, D_has_hdim: true, chunk_size: 128 };
    const json = { ...original, ssm_cfg: ssm, pad_vocab_size_multiple: 16, tie_embeddings: false, rms_norm: false };
    const wanted: Partial<ModelConfig> = {
      variant: "mamba2",
      vocabSize: 50288,
      dModel: 32,
      nLayers: 3,
      dState: 128,
      headDim: 16,
      nGroups: 2,
      dHasHeadDim: true,
      chunkSize: 128,
      norm: "layer",
      tieEmbeddings: false,
    };
    expect(read({ ...json, d_intermediate: 0, attn_layer_idx: [], attn_cfg: {} })).toEqual(modelConfig(wanted));
  });

  it.each<[string, JsonObject, string]>([
    ["another architecture", { model_type: "llama" }, '"model_type" is "llama", which is not known; the forms known'],
    ["a relative of Mamba", { ...mamba, model_type: "falcon_mamba" }, '"model_type" is "falcon_mamba"'],
    ["no architecture", { hidden_size: 32 }, '"model_type" is null'],
    ["another activation", { ...mamba, hidden_act: "gelu" }, '"hidden_act" is "gelu"; it must be "silu" or "swish"'],
    ["no width", { ...mamba, hidden_size: null }, '"hidden_size" is null; it must be a whole number of at least 1'],
    ["no vocabulary", { model_type: "mamba", hidden_size: 32, num_hidden_layers: 1 }, '"vocab_size" is missing'],
    ["a text as a size", { ...mamba, state_size: "16" }, '"state_size" is "16"; it must be a whole number'],
    ["a broken expansion", { ...mamba, expand: 1.5 }, '"expand" is 1.5'],
    ["another inner width", { ...mamba, intermediate_size: 96 }, '"intermediate_size" is 96; it must be 64'],
    [
      "a rank of nothing",
      { ...mamba, time_step_rank: 0 },
      '"time_step_rank" is 0; it must be "auto" or a whole number',
    ],
    ["a flag that is none", { ...mamba, use_bias: "no" }, '"use_bias" is "no"; it must be true or false'],
    ["heads that do not fit", { ...mamba2, num_heads: 8 }, '"num_heads" is 8; it must be 4'],
    ["heads by default that do not fit", { ...mamba2, num_heads: null }, '"num_heads" is null; it must be 4'],
    ["a head size that does not divide", { ...mamba2, head_dim: 10 }, '"head_dim" is 10; it must be a divisor'],
    ["no gated norm", { ...mamba2, rms_norm: false }, '"rms_norm" is false; it must be true'],
    ["half a limit", { ...mamba2, time_step_limit: [1] }, '"time_step_limit" is [1]; it must be two numbers'],
    ["differential biases", { ...diffmamba2, use_bias: true }, '"use_bias" is true; it must be false'],
    ["differential expansion", { ...diffmamba2, expand: 4, num_heads: 8 }, '"expand" is 4; it must be 2'],
    ["another epsilon", { ...diffmamba2, layer_norm_epsilon: 1e-6 }, '"layer_norm_epsilon" is 0.000001'],
    ["no settings", { ...mamba2, diffmamba: true }, '"diffmamba_settings" is missing; it must be "alternate" or "all"'],
    ["other settings", { ...diffmamba2, diffmamba_settings: "12" }, '"diffmamba_settings" is "12"'],
    ["attention", { ...original, attn_layer_idx: [1] }, '"attn_layer_idx" is [1]; it must be []'],
    ["feed-forwards", { ...original, d_intermediate: 64 }, '"d_intermediate" is 64; it must be 0'],
    ["Mamba-3", { ...original, ssm_cfg: { layer: "Mamba3" } }, '"ssm_cfg.layer" is "Mamba3"; it must be "Mamba1" or'],
    [
      "an option of the mixer",
      { ...original, ssm_cfg: { rope: 1 } },
      '"ssm_cfg.rope" is 1; it must be left out; known',
    ],
    ["channels beside the scan", { ...original, ssm_cfg: { layer: "Mamba2", d_ssm: 32 } }, '"ssm_cfg.d_ssm" is 32'],
    ["a mixer's options that are none", { ...original, ssm_cfg: [] }, '"ssm_cfg" is []; it must be an object'],
    ["no configuration", { model_type: "diffmamba" }, '"diffmamba_config" is missing'],
    ["a field that no model has", { model_type: "diffmamba", diffmamba_config: { width: 1 } }, "width: no such field"],
    ["a value that no model has", { model_type: "diffmamba", diffmamba_config: { dModel: 0 } }, "dModel: 0; it must"],
    ["two models", { ...mamba, diffmamba_config: { dModel: 64 } }, '"diffmamba_config" (dModel) says another model'],
    ["more that is no object", { ...mamba, diffmamba_config: 1 }, '"diffmamba_config" is no object'],
  ])("%s is refused by name", (_, json, message) => {
    expect(() => read(json)).toThrow(FormatError);
    expect(() => read(json)).toThrow(message);
    expect(() => read(json)).toThrow(/^m\/config\.json: /);
  });

  it("what is no object is refused", () => {
    expect(() => readConfig([1], path)).toThrow("m/config.json: holds no object");
  });
});

describe("writing", () => {
  it.each(tinyModels)("%s can be read again, the same", (_, config) => {
    const text = stringifyLooseJson(writeConfig(config));
    expect(readConfig(parseLooseJson(text, path), path)).toEqual(config);
  });

  it.each<[string, Partial<ModelConfig>]>([
    ["mamba", { variant: "mamba" }],
    ["mamba", { variant: "mamba", bias: true, dtRank: 9, chunkSize: 32, pattern: [0], dropout: 0.1 }],
    ["mamba2", { variant: "mamba2", dtLimit: [0.1, 0.2] }],
    ["mamba2", { variant: "mamba2", nGroups: 2, normGroups: 1, lambda: "none" }],
    ["mamba2", { pattern: "alternate", aInit: "uniform" }],
    ["mamba2", { pattern: "quarter", lambdaIndex: "sublayer", tieEmbeddings: false }],
    ["diffmamba", { variant: "mamba2", nGroups: 2 }],
    ["diffmamba", { variant: "mamba2", dHasHeadDim: true }],
    ["diffmamba", { variant: "mamba2", normBeforeGate: true }],
    ["diffmamba", { variant: "mamba2", norm: "layer" }],
    ["diffmamba", { variant: "mamba2", residual: "post" }],
    ["diffmamba", { variant: "mamba2", feedForward: 4 }],
    ["diffmamba", { variant: "mamba2", mixersPerBlock: 2 }],
    ["diffmamba", { variant: "mamba2", embeddingScale: 2 }],
    ["diffmamba", { variant: "mamba", learnableInitialState: true }],
    ["diffmamba", { variant: "mamba", adaptive: { cutoffs: [10], divValue: 1 } }],
    ["diffmamba", { pattern: [0, 1] }],
    ["diffmamba", { pattern: "none" }],
    ["diffmamba", { lambda: "scalar" }],
    ["diffmamba", { subln: false }],
    ["diffmamba", { expand: 4 }],
    ["diffmamba", { normEps: 1e-6 }],
    ["diffmamba", { variant: "diffmamba2e" }],
    ["diffmamba", { variant: "diffs6" }],
  ])("as %s: %o", (type, fields) => {
    const config = modelConfig(fields);
    const json = writeConfig(config);
    expect(json.model_type).toBe(type);
    expect(readConfig(json, path)).toEqual(config);
  });

  it("has the library's keys, with a bare Infinity, and the two of the differential class", () => {
    const config = modelConfig({ dModel: 32, headDim: 16, pattern: "alternate", vocabSize: 96, aInit: "range" });
    const json = writeConfig(config);
    expect(json).toMatchObject({
      architectures: ["DiffMamba2ForCausalLM"],
      model_type: "mamba2",
      diffmamba: true,
      diffmamba_settings: "alternate",
      expand: 2,
      head_dim: 16,
      num_heads: 4,
      time_step_rank: 2,
      hidden_act: "silu",
    });
    expect(json).not.toHaveProperty("diffmamba_config");
    expect(stringifyLooseJson(json)).toMatch(/"time_step_limit": \[\s*0,\s*Infinity\s*\]/);
  });

  it("keeps apart what the library's keys do not hold, where the model is the same without it", () => {
    const json = writeConfig(modelConfig({ variant: "mamba2", dropout: 0.1 }));
    expect(json.diffmamba_config).toEqual({ aInit: "uniform", dropout: 0.1 });
  });
});
