// Configurations: defaults, and everything that no model can have, by its field.

import { describe, expect, it } from "vitest";
import { configFields, defaultConfig, type ModelConfig, modelConfig } from "./config.js";
import { ConfigError } from "./configChecks.js";

describe("a configuration", () => {
  it("has defaults for what is not given, and survives JSON", () => {
    const config = modelConfig({ dModel: 64, pattern: [0, 2] });
    expect(config).toEqual({ ...defaultConfig, dModel: 64, pattern: [0, 2] });
    expect(modelConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
    expect(configFields).toEqual(Object.keys(defaultConfig));
  });

  it.each<[string, Record<string, unknown>, string]>([
    ["an unknown field", { dmodel: 64 }, "dmodel: no such field"],
    ["an unknown variant", { variant: "mamba3" }, 'variant: "mamba3"; it must be one of mamba, mamba2'],
    ["no vocabulary", { vocabSize: 0 }, "vocabSize: 0; it must be a whole number of at least 1"],
    ["a broken size", { dModel: 12.5 }, "dModel: 12.5; it must be a whole number of at least 1"],
    ["a text for a number", { nLayers: "4" }, 'nLayers: "4"'],
    ["a number for a flag", { bias: 1 }, "bias: 1; it must be a boolean"],
    ["nothing", { normEps: undefined }, "normEps: undefined; it must be a number"],
    ["a negative number", { dtMin: -1 }, "dtMin: -1; it must be a number of at least 0"],
    ["no number", { normEps: Number.NaN }, "normEps: null; it must be a number of at least 0"],
    ["a dropout of everything", { dropout: 1 }, "dropout: 1; it must be below 1"],
    ["a broken feed-forward", { feedForward: 1.5 }, "feedForward: 1.5; it must be a whole number of at least 0"],
    ["an unknown lambda", { lambda: "vector" }, 'lambda: "vector"; it must be one of vecsum, scalar, channel, none'],
    ["an unknown pattern", { pattern: "half" }, 'pattern: "half"; it must be "all", "alternate", "quarter", "none"'],
    ["a layer that does not exist", { pattern: [0, 4] }, "pattern: [0,4]; it must be a list of layers below 4"],
    ["limits the wrong way round", { dtLimit: [2, 1] }, "dtLimit: [2,1]"],
    ["one limit", { dtLimit: [2] }, "dtLimit: [2]; it must be [low, high]"],
    ["heads that do not divide", { headDim: 48 }, "headDim: 48; it must be a divisor of expand x dModel = 256"],
    ["groups that do not divide", { nGroups: 3 }, "nGroups: 3; it must be a divisor of the 4 heads"],
    ["norm groups that do not divide", { normGroups: 3 }, "normGroups: 3; it must be a divisor of 128 channels"],
    ["branches without half a head", { headDim: 1 }, "headDim: 1; it must be even"],
    ["branches without half the channels", { expand: 1 }, "expand: 1; it must be even"],
    ["halves of an odd width", { variant: "diffmamba2e", dModel: 7, headDim: 2 }, "dModel: 7; it must be even"],
    ["biases in the fused mixer", { bias: true }, "bias: true; it must be false: the variant diffmamba2 has no other"],
    ["a lambda mode for Mamba-1", { variant: "diffmamba", lambda: "none" }, "lambda: "],
    [
      "groups for Mamba-1",
      { variant: "mamba", nGroups: 2 },
      "nGroups: 2; it must be 1: the variant mamba has no other",
    ],
    ["a learned state of Diff-S6", { variant: "diffs6", learnableInitialState: true }, "learnableInitialState: true"],
    ["no gated norm in Diff-S6", { variant: "diffs6mamba2", rmsNorm: false }, "rmsNorm: false"],
    ["clusters in disorder", { adaptive: { cutoffs: [9, 5], divValue: 1 } }, "adaptive: "],
    ["no clusters", { adaptive: { cutoffs: [], divValue: 1 } }, "adaptive: "],
    ["half an adaptive softmax", { adaptive: { cutoffs: [9] } }, "adaptive: "],
    ["more in an adaptive softmax", { adaptive: { cutoffs: [9], divValue: 1, dropout: 0 } }, "adaptive: "],
    ["an adaptive softmax by name", { adaptive: "yes" }, "adaptive: "],
    ["clusters too narrow", { dModel: 16, headDim: 16, adaptive: { cutoffs: [5, 9, 20], divValue: 4 } }, "adaptive: "],
    [
      "an untied adaptive softmax",
      { adaptive: { cutoffs: [9], divValue: 1 }, tieEmbeddings: false },
      "tieEmbeddings: ",
    ],
  ])("with %s is refused by name", (_, fields, message) => {
    const make = () => modelConfig(fields as Partial<ModelConfig>);
    expect(make).toThrow(ConfigError);
    expect(make).toThrow(message);
    expect(() => make()).toThrow(new RegExp(`^${message.slice(0, message.indexOf(":"))}: `));
  });

  it.each<Partial<ModelConfig>>([
    { variant: "mamba", headDim: 999 },
    { variant: "diffmamba", lambda: "vecsum" },
    { variant: "mamba2", expand: 1, bias: true },
    { adaptive: { cutoffs: [19997, 39997, 199997], divValue: 1 } },
    { vocabSize: 10, dModel: 16, headDim: 16, adaptive: { cutoffs: [5, 20, 30], divValue: 4 } },
    { pattern: [] },
    { dtLimit: [0, 0] },
  ])("%o is fine", (fields) => {
    expect(modelConfig(fields)).toMatchObject(fields);
  });
});
