// Layer: nn, tests of masters and their copies, of gradients summed in f32, of the loss scale, and of what decoding keeps.
import { bf16ToF32Array, type Device, f32ToBf16Array, keep, noGrad, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AdamW, decayGroups } from "./adamw.js";
import { Build } from "./build.js";
import { Derived } from "./derived.js";
import { normal } from "./init.js";
import { FeedForward, Linear } from "./layers.js";
import { LossScale } from "./lossScale.js";
import { trainStep } from "./trainStep.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const rounded = async (master: Tensor) => bf16ToF32Array(f32ToBf16Array((await master.data()) as Float32Array));

describe("a master with a copy", () => {
  it("computes with the copy, which follows whatever is written to the master", async () => {
    const build = new Build({ device, compute: "bf16", seed: 1 });
    const { weight } = new Linear({ inFeatures: 3, outFeatures: 4 }, build);
    expect([weight.dtype, weight.compute.dtype]).toEqual(["f32", "bf16"]);
    expect(await weight.compute.data()).toEqual(await rounded(weight));
    const { compute } = weight;
    weight.write(Float32Array.from({ length: 12 }, (_, i) => 1 + i / 1000));
    expect(weight.compute).toBe(compute);
    expect(await compute.data()).toEqual(await rounded(weight));
    expect(build.dynamics("A", [2], normal(1)).copy).toBeUndefined();
    expect(build.parameter("w", [2], normal(1), false).compute.dtype).toBe("f32");
    expect(() => new Build({ device, dtype: "bf16", compute: "f16" })).toThrow("masters are f32");
    const before = device.memory().tensors;
    weight.dispose();
    expect(device.memory().tensors).toBe(before - 2);
  });

  it("is stepped by AdamW together with its copy, by amounts that bf16 cannot hold", async () => {
    const model = new FeedForward({ dModel: 4, dHidden: 8 }, new Build({ device, compute: "bf16", seed: 1 }));
    const optimizer = new AdamW(decayGroups(model, 0.1));
    const x = noGrad(() => new Build({ device, seed: 2 }).parameter("x", [6, 4], normal(1)).cast("bf16"));
    const first = await model.up.weight.data();
    for (let i = 0; i < 3; i++)
      trainStep(optimizer, [() => model.forward(x).cast("f32").square().mean()], { lr: 1e-5 });
    const last = await model.up.weight.data();
    expect(last).not.toEqual(first);
    expect(Math.max(...Array.from(last, (w, i) => Math.abs(w - first[i])))).toBeLessThan(1e-4);
    for (const parameter of model.parameters()) {
      const { version } = parameter.compute.storage;
      expect(await parameter.compute.data()).toEqual(await rounded(parameter));
      expect(parameter.compute.storage.version).toBe(version);
    }
  });

  it("has gradients of micro-batches summed in f32", async () => {
    const build = () => new Build({ device, compute: "bf16", seed: 1 });
    // 257 gradients of about 1: a sum in bf16 would stop at 256.
    const layer = new Linear({ inFeatures: 1, outFeatures: 1, bias: false }, build());
    const optimizer = new AdamW([{ parameters: layer.parameters(), weightDecay: 0 }]);
    const x = device.ones([1, 1], "bf16");
    const parts = 320;
    const losses = Array.from({ length: parts }, () => () => layer.forward(x).cast("f32").sum().mul(parts));
    const { norm } = trainStep(optimizer, losses, { lr: 0 });
    expect(await norm.item()).toBe(parts);
  });
});

describe("LossScale", () => {
  it("halves at an overflow, doubles after a run without, and never leaves its range", async () => {
    const scale = new LossScale(device, { initial: 4, growthInterval: 2 });
    const seen: number[] = [];
    for (const norm of [1, Number.POSITIVE_INFINITY, 1, 1, 1, Number.NaN, Number.NaN, Number.NaN, Number.NaN, 0, 0]) {
      using given = device.full([], norm);
      scale.update(given);
      seen.push((await scale.state()).scale);
    }
    expect(seen).toEqual([4, 2, 2, 4, 4, 2, 1, 1, 1, 1, 2]);
    scale.restore({ scale: 8, steps: 1 });
    using one = device.ones([]);
    scale.update(one);
    expect(await scale.state()).toEqual({ scale: 16, steps: 0 });
    scale.dispose();
  });

  it("changes no step but for rounding", async () => {
    const results: number[][] = [];
    for (const scaled of [false, true]) {
      const model = new FeedForward({ dModel: 4, dHidden: 8 }, new Build({ device, seed: 1 }));
      const optimizer = new AdamW(decayGroups(model, 0.1));
      const lossScale = scaled ? new LossScale(device) : undefined;
      const x = new Build({ device, seed: 2 }).parameter("x", [6, 4], normal(1));
      const compute = () => model.forward(x).square().mean();
      const options = { lr: 0.01, maxNorm: 0.1, ...(lossScale && { lossScale }) };
      const { loss, norm } = trainStep(optimizer, [compute, compute], options);
      results.push([await loss.item(), await norm.item(), ...(await model.up.weight.data())]);
    }
    expect(results[1]).toEqual(results[0].map((value) => expect.closeTo(value, 5)));
  });
});

describe("Derived", () => {
  it("keeps a value for steps of decoding, until its parameter changes or training begins", () => {
    const layer = new Linear({ inFeatures: 2, outFeatures: 2 }, new Build({ device, seed: 1 })).eval();
    const derived = new Derived();
    let made = 0;
    const get = (length: number) => {
      const x = device.zeros([1, length, 2]);
      return derived.get(layer, x, [layer.weight], () => {
        made++;
        return keep(layer.weight.neg());
      });
    };
    expect(get(1)).toBe(get(1));
    expect(made).toBe(1);
    get(3);
    expect(made).toBe(2);
    layer.weight.fillInPlace(1);
    get(1);
    expect(made).toBe(3);
    layer.train();
    get(1);
    get(1);
    expect(made).toBe(5);
    derived.dispose();
  });
});
