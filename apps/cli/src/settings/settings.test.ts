// Layer: apps/cli, settings, tests. How settings are merged, named and read; the presets; the nearest word.
import { modelConfig, preset as modelPreset } from "@diffmamba/models";
import { describe, expect, it } from "vitest";
import { UsageError } from "../errors.js";
import { didYouMean, nearest } from "../suggest.js";
import { scheduleOf } from "../training/schedule.js";
import { presetNames, presetSource, presets } from "./presets.js";
import { flatSettings, parseAssignment, resolveSettings, type SettingsSource, settingName } from "./resolve.js";
import { settingNames } from "./schema.js";

const from = (name: string, values: Record<string, unknown>): SettingsSource => ({
  label: (key) => `${name}: ${key}`,
  values,
});

describe("settings", () => {
  it("have defaults, and a later source wins, a setting at a time", () => {
    const { seed, train, model, data } = resolveSettings([
      from("first", { train: { lr: 0.5, steps: 7 }, model: { dModel: 32 }, "data.valid": 0.2 }),
      from("second", { lr: 0.25, "train.warmup": 3 }),
      parseAssignment("steps=9"),
    ]);
    expect(train).toMatchObject({ lr: 0.25, steps: 9, warmup: 3, schedule: "cosine", batchSize: 8 });
    expect({ seed, model, data }).toEqual({
      seed: 0,
      model: { dModel: 32 },
      data: { tokenizer: "bytes", valid: 0.2, test: 0, order: "random", mix: "" },
    });
  });

  it("are named in full, in short and nested, and the same thing is meant", () => {
    const all = [from("a", { train: { lr: 1 } }), from("b", { "train.lr": 1 }), from("c", { lr: 1 })];
    for (const source of all) expect(resolveSettings([source]).train.lr).toBe(1);
    expect(settingName("dModel", "x")).toBe("model.dModel");
    expect(settingName("seed", "x")).toBe("seed");
    for (const name of settingNames) expect(settingName(name, "x")).toBe(name);
  });

  it.each([
    ["dModel=64", 64],
    ["dModel = 64", undefined],
    ["lr=1e-3", 1e-3],
    ["pattern=[0, 2]", [0, 2]],
    ["samplePrompt=a=b", "a=b"],
    ["subln=false", false],
    ["pattern=alternate", "alternate"],
    ["samplePrompt=", null],
  ])("--set %s is read as YAML reads it", (text, value) => {
    const { values } = parseAssignment(text);
    const key = text.slice(0, text.indexOf("="));
    expect(values).toEqual({ [key]: value === undefined ? 64 : value });
  });

  it.each(["dModel", "=3", "pattern=[0, 2"])("--set %s is no assignment", (text) => {
    expect(() => parseAssignment(text)).toThrow(UsageError);
    expect(() => parseAssignment(text)).toThrow(`--set ${text}: `);
  });

  it.each([
    [{ dModle: 1 }, "run.yaml: dModle: no such setting. Did you mean dModel?"],
    [{ "train.stps": 1 }, "run.yaml: train.stps: no such setting. Did you mean train.steps?"],
    [{ train: { stps: 1 } }, "run.yaml: train.stps: no such setting. Did you mean train.steps?"],
    [{ modle: { dModel: 1 } }, "run.yaml: modle: no such group of settings. Did you mean model?"],
    [{ train: 3 }, "run.yaml: train: a group of settings"],
    [{ steps: 0 }, "run.yaml: steps: train.steps must be a whole number of at least 1."],
    [{ valid: 1 }, "run.yaml: valid: data.valid must be a number of at least 0 and below 1."],
    [{ seed: -1 }, "run.yaml: seed: must be a whole number of at least 0."],
    [{ schedule: "step" }, "run.yaml: schedule: train.schedule must be one of constant, linear, cosine, wsd."],
    [{ model: { headDim: 7 } }, "run.yaml: model.headDim: model.headDim is 7; it must be even"],
  ])("%j: the complaint names source, setting and what it must be", (values, message) => {
    expect(() => resolveSettings([from("run.yaml", values)])).toThrow(UsageError);
    expect(() => resolveSettings([from("run.yaml", values)])).toThrow(message);
  });

  it("blames the source that said it last", () => {
    expect(() => resolveSettings([from("first", { lr: 1 }), parseAssignment("lr=fast")])).toThrow(/^--set lr=fast: /);
  });

  it("are flat in tables", () => {
    expect([...flatSettings({ a: 1, b: { c: "x", d: { e: [1, 2] } }, f: undefined })]).toEqual([
      ["a", "1"],
      ["b.c", "x"],
      ["b.d.e", "[1,2]"],
    ]);
  });
});

describe("presets", () => {
  it.each(presetNames)("%s is whole and says what it is for", (name) => {
    expect(presets[name].about).toMatch(/\S/);
    expect(() => resolveSettings([presetSource(name)])).not.toThrow();
  });

  it.each([
    ["text8-6", "text8-6-mamba2"],
    ["text8-12-diffmamba2", "text8-12-diffmamba2"],
    ["enwik8-6-diffmamba2", "enwik8-6-diffmamba2"],
    ["wt103-12", "wt103-12-mamba2"],
    ["wt103-6-control", "wt103-6-control"],
    ["table2-diffs6mamba2-vecsum-nosubln", "table2-diffs6mamba2-vecsum-nosubln"],
    ["mamba2-370m", "mamba2-370m"],
    ["diffmamba2-370m", "diffmamba2-370m"],
  ])("%s is the model %s", (name, model) => {
    const { vocabSize } = modelPreset(model);
    const ours = modelConfig({ ...resolveSettings([presetSource(name)]).model, vocabSize });
    expect(ours).toEqual(modelPreset(model));
  });

  it.each([
    ["wt103-6", 100, 5e-4, 80_680, 0.976],
    ["wt103-12", 50, 5e-4, 161_320, 0.904],
    ["text8-6", 170, 5e-4, 41_400, 0.994],
    ["text8-12", 50, 5e-5, 140_640, 0.926],
    ["enwik8-6", 170, 5e-4, 40_920, 0.994],
    ["enwik8-12", 80, 1e-4, 86_920, 0.972],
  ])("trains %s as the paper does", (name, batchSize, lr, steps, lastFactor) => {
    for (const ending of ["", "-diffmamba2", "-control"]) {
      const { train, data } = resolveSettings([presetSource(name + ending)]);
      expect(train).toMatchObject({ batchSize, lr, steps, length: 512, warmup: 1000, clip: 0, accumulate: 1 });
      expect(train).toMatchObject({ beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, decayRule: "backbone" });
      expect(data.order).toBe("rows");
      const rate = scheduleOf(train);
      expect([rate(0), rate(500), rate(1000)]).toEqual([0, lr / 2, lr]);
      expect(Math.abs(rate(steps) / lr - lastFactor)).toBeLessThan(6e-4);
    }
  });

  it("trains the rows of table 2 for 15,000 steps", () => {
    const rows = presetNames.filter((name) => name.startsWith("table2-"));
    expect(rows).toHaveLength(10);
    for (const row of rows) {
      const { train, model } = resolveSettings([presetSource(row)]);
      expect(train).toMatchObject({ steps: 15_000, warmup: 1000, batchSize: 170, lr: 5e-4 });
      expect(model).toMatchObject({ nLayers: 6, dropout: 0.4 });
    }
  });

  it("becomes another variant by flags, as the command line has them", () => {
    const flags = { label: (key: string) => key, values: { "model.variant": "diffmamba2", "model.lambda": "scalar" } };
    const vocabSize = 27;
    const ours = modelConfig({ ...resolveSettings([presetSource("text8-6"), flags]).model, vocabSize });
    expect(ours).toEqual(modelPreset("table2-diffmamba2-scalar"));
  });

  it("has a tiny one of 200 steps", () => {
    expect(resolveSettings([presetSource("tiny")]).train.steps).toBe(200);
  });

  it.each(["", "-small"])("has two of the demo of equal width, state and training: demo-*%s", (size) => {
    const [plain, differential] = ["demo-mamba2", "demo-diffmamba2"].map((name) =>
      resolveSettings([presetSource(name + size)]),
    );
    expect(plain.model).toMatchObject({ variant: "mamba2" });
    expect({ ...differential, model: { ...differential.model, variant: "mamba2" } }).toEqual(plain);
  });

  it("that there is none is said with the nearest, or with all", () => {
    expect(() => presetSource("tinny")).toThrow("--preset tinny: no such preset. Did you mean tiny?");
    expect(() => presetSource("zzzzzzzz")).toThrow(/no such preset\. There are tiny, demo-mamba2, /);
    expect(() => presetSource("constructor")).toThrow("no such preset");
  });
});

describe("the nearest word", () => {
  it.each([
    ["dmodel", "dModel"],
    ["batchsize", "batchSize"],
    ["stps", "steps"],
    ["lengthh", "length"],
    ["qqqqqqqq", undefined],
  ])("to %s is %s", (word, expected) => {
    expect(nearest(word, ["dModel", "batchSize", "steps", "length"])).toBe(expected);
  });

  it("is suggested where it is near, else what there is where that is short", () => {
    expect(didYouMean("a", [])).toBe("");
    expect(didYouMean("cud", ["cpu", "cuda"], 3)).toBe(" Did you mean cuda?");
    expect(didYouMean("something", ["cpu", "cuda"], 3)).toBe(" There are cpu, cuda.");
    expect(didYouMean("something", ["cpu", "cuda"], 1)).toBe("");
  });
});
