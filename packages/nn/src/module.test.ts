import { type Device, type HostTensor, reference } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Build } from "./build.js";
import { constant, normal } from "./init.js";
import { Dropout, LayerNorm, Linear } from "./layers.js";
import { Module } from "./module.js";
import type { Parameter } from "./parameter.js";
import { type PublishedTensor, whole } from "./published.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

/** A module with a fused parameter: rows [a1 | b1 | a2 | b2] and columns, published in parts. */
class Fused extends Module {
  readonly weight: Parameter;
  readonly scale: Parameter;

  constructor(build: Build) {
    super();
    this.weight = this.register("weight", build.parameter("weight", [6, 4], normal(1)));
    this.scale = this.register("scale", build.parameter("scale", [3], constant(2)));
  }

  protected override ownPublished(): PublishedTensor[] {
    const { weight } = this;
    return [
      {
        name: "a",
        parameter: weight,
        axis: 0,
        pieces: [
          [0, 1],
          [3, 5],
        ],
      },
      {
        name: "b",
        parameter: weight,
        axis: 0,
        pieces: [
          [1, 3],
          [5, 6],
        ],
      },
      whole("scale", this.scale, [3, 1, 1]),
    ];
  }
}

class Net extends Module {
  readonly first: Linear;
  readonly norm: LayerNorm;
  readonly fused: Fused;
  readonly dropout: Dropout;
  readonly tied: Parameter;

  constructor(build: Build) {
    super();
    this.first = this.register("first", new Linear({ inFeatures: 4, outFeatures: 3 }, build.at("first")));
    this.norm = this.register("block.norm", new LayerNorm({ dim: 3 }, build.at("block.norm")));
    this.fused = this.register("", new Fused(build));
    this.dropout = this.register("dropout", new Dropout(0.5, build.at("dropout")));
    this.tied = this.register("head", this.first.weight);
  }

  again(name: string): void {
    this.register(name, this.first);
  }
}

const net = () => new Net(new Build({ device, seed: 1 }));

describe("Module", () => {
  it("names parameters by their path, each once, under its first name", () => {
    const module = net();
    const names = ["first.weight", "first.bias", "block.norm.weight", "block.norm.bias", "weight", "scale"];
    expect([...module.namedParameters().keys()]).toEqual(names);
    expect([...module.namedParameters("model").keys()]).toEqual(names.map((name) => `model.${name}`));
    expect(module.parameters()).toEqual([...module.namedParameters().values()]);
    expect(module.parameterCount()).toBe(12 + 3 + 3 + 3 + 24 + 3);
    expect(module.children().map(([name]) => name)).toEqual(["first", "block.norm", "", "dropout"]);
    expect(module.device).toBe(device);
  });

  it("refuses a name twice, and has no device without parameters", () => {
    expect(() => net().again("first")).toThrow("Net: two members are called first.");
    expect(() => new Dropout(0).device).toThrow("Dropout: has no parameters, and so no device");
  });

  it("passes training and evaluation mode on to all in it", () => {
    const module = net();
    expect([module.training, module.dropout.training]).toEqual([true, true]);
    expect(module.eval()).toBe(module);
    expect([module.training, module.dropout.training, module.fused.training]).toEqual([false, false, false]);
    module.train();
    expect([module.training, module.dropout.training]).toEqual([true, true]);
  });

  it("frees all parameters", () => {
    const before = device.memory().tensors;
    const module = net();
    expect(device.memory().tensors).toBeGreaterThan(before);
    module.dispose();
    expect(device.memory().tensors).toBe(before);
  });
});

describe("the state dict", () => {
  it("holds published tensors: parts of fused parameters, and shapes of their own", async () => {
    const module = net();
    const weight = Array.from(await module.fused.weight.data());
    const tensors = await module.stateDict();
    // A tied parameter is published under each of its names, as it is held.
    expect([...tensors.keys()].sort()).toEqual(
      ["a", "b", "block.norm.bias", "block.norm.weight", "first.bias", "first.weight", "head", "scale"].sort(),
    );
    expect(tensors.get("a")?.shape).toEqual([3, 4]);
    expect(Array.from(tensors.get("a")?.data ?? [])).toEqual([...weight.slice(0, 4), ...weight.slice(12, 20)]);
    expect(Array.from(tensors.get("b")?.data ?? [])).toEqual([...weight.slice(4, 12), ...weight.slice(20)]);
    expect(tensors.get("scale")?.shape).toEqual([3, 1, 1]);
  });

  it("goes into another module bit for bit, and comes out again", async () => {
    const tensors = await net().stateDict();
    const other = new Net(new Build({ device, seed: 2 }));
    expect(await other.stateDict()).not.toEqual(tensors);
    other.loadStateDict(tensors);
    expect(await other.stateDict()).toEqual(tensors);
  });

  it("is converted to the parameters' type", async () => {
    const own = (value: number): HostTensor => ({ dtype: "bf16", shape: [2, 1], data: Uint16Array.of(value, 0x4000) });
    const module = new Linear({ inFeatures: 1, outFeatures: 2, bias: false }, new Build({ device }));
    module.loadStateDict(new Map([["weight", own(0x3fc0)]]));
    expect(Array.from(await module.weight.data())).toEqual([1.5, 2]);
    const half = new Linear({ inFeatures: 1, outFeatures: 2, bias: false }, new Build({ device, dtype: "bf16" }));
    half.loadStateDict(new Map([["weight", { dtype: "f32", shape: [2, 1], data: Float32Array.of(1.005, -3) }]]));
    expect(Array.from(await half.weight.data())).toEqual([1.0078125, -3]);
  });

  it("names what is missing, unknown or of another shape, and then writes nothing", async () => {
    const module = net();
    const before = await module.stateDict();
    const others = await new Net(new Build({ device, seed: 2 })).stateDict();
    const change = (edit: (tensors: Map<string, HostTensor>) => void) => {
      const tensors = new Map(others);
      edit(tensors);
      return () => module.loadStateDict(tensors);
    };
    expect(change((t) => t.delete("a"))).toThrow("loadStateDict: a is missing.");
    expect(change((t) => t.clear())).toThrow(/(\S+, ){4}\S+ and 3 more are missing/);
    const extra = others.get("a") as HostTensor;
    expect(change((t) => t.set("extra", extra))).toThrow("loadStateDict: extra is unknown to the model.");
    const wrong: HostTensor = { dtype: "f32", shape: [4, 3], data: new Float32Array(12) };
    expect(change((t) => t.set("b", wrong))).toThrow("loadStateDict: b is (4, 3); the model has (3, 4).");
    expect(change((t) => t.delete("head"))).toThrow("head is missing");
    expect(await module.stateDict()).toEqual(before);
    module.loadStateDict(new Map([...others, ["extra", extra]]), { strict: false });
    expect(await module.stateDict()).toEqual(others);
  });
});

describe("Build", () => {
  it("draws every parameter from a stream of its own, by seed and path", async () => {
    const draw = async (seed: number, path: string, name: string) =>
      Array.from(await new Build({ device, seed }, path).parameter(name, [5], normal(1)).data());
    const first = await draw(1, "a", "w");
    expect(await draw(1, "a", "w")).toEqual(first);
    expect(await draw(1, "", "a.w")).toEqual(first);
    expect(await draw(2, "a", "w")).not.toEqual(first);
    expect(await draw(1, "a", "v")).not.toEqual(first);
    expect(await draw(1, "b", "w")).not.toEqual(first);
  });

  it("gives the same numbers in f64 and, rounded, in f32 and bf16", async () => {
    const draw = async (dtype: "f64" | "f32" | "bf16") =>
      Array.from(await new Build({ device, dtype, seed: 1 }).parameter("w", [100], normal(1)).data());
    const [f64, f32, bf16] = await Promise.all([draw("f64"), draw("f32"), draw("bf16")]);
    expect(f32).toEqual(f64.map(Math.fround));
    for (const [i, value] of bf16.entries())
      expect(Math.abs(value - f64[i])).toBeLessThanOrEqual(Math.abs(f64[i]) / 256);
  });

  it("has one clock for all that is built from one root", () => {
    const build = new Build({ device });
    expect(build.at("a").at("b").clock).toBe(build.at("c").clock);
    expect(new Build({ device }).clock).not.toBe(build.clock);
  });
});
