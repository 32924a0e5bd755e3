// Layer: apps/cli, settings, tests. How settings are merged, named and read; the presets; the nearest word.
import { modelConfig, preset as modelPreset } from "@diffmamba/models";
import { describe, expect, it } from "vitest";
import { UsageError } from "../errors.js";
import { didYouMean, nearest } from "../suggest.js";
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
      data: { tokenizer: "bytes", valid: 0.2, test: 0, order: "random" },
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
    ["mamba2-370m", "mamba2-370m"],
    ["diffmamba2-370m", "diffmamba2-370m"],
  ])("%s is the model %s", (name, model) => {
    const { vocabSize } = modelPreset(model);
    const ours = modelConfig({ ...resolveSettings([presetSource(name)]).model, vocabSize });
    expect(ours).toEqual(modelPreset(model));
  });

  it("trains the paper's small models as the paper does", () => {
    const { train, data } = resolveSettings([presetSource("text8-6")]);
    expect(train).toMatchObject({ batchSize: 170, lr: 5e-4, steps: 41_400, length: 512, scheduleSteps: 800_000 });
    expect(data).toMatchObject({ order: "rows", tokenizer: "text8" });
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
