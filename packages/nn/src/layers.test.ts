import { type Device, grad, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Build } from "./build.js";
import { constant } from "./init.js";
import { Dropout, Embedding, FeedForward, gelu, LayerNorm, Linear, RMSNorm } from "./layers.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const list = async (x: Tensor) => Array.from(await x.data());
const f64 = () => new Build({ device, dtype: "f64", seed: 1 });

describe("layers", () => {
  it("Linear is x W^T + b, over any leading axes", async () => {
    const layer = new Linear({ inFeatures: 2, outFeatures: 3 }, f64());
    layer.weight.write(Float64Array.of(1, 2, 3, 4, 5, 6));
    layer.bias?.write(Float64Array.of(10, 20, 30));
    const x = device.tensor([[[1, 1]], [[2, 0]]], "f64");
    const y = layer.forward(x);
    expect(y.shape).toEqual([2, 1, 3]);
    expect(await list(y)).toEqual([13, 27, 41, 12, 26, 40]);
    expect(new Linear({ inFeatures: 2, outFeatures: 3, bias: false }, f64()).bias).toBeUndefined();
    expect(() => layer.forward(device.zeros([1, 3], "f64"))).toThrow(/\(1, 3\)/);
  });

  it("Linear begins as PyTorch's does, weight and bias", async () => {
    const layer = new Linear({ inFeatures: 16, outFeatures: 1000 }, f64());
    for (const parameter of layer.parameters()) {
      const values = await list(parameter);
      expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(0.25);
      expect(Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length)).toBeCloseTo(
        1 / Math.sqrt(48),
        2,
      );
    }
  });

  it("Embedding looks rows up", async () => {
    const layer = new Embedding({ count: 3, dim: 2 }, f64());
    layer.weight.write(Float64Array.of(1, 2, 3, 4, 5, 6));
    expect(await list(layer.forward(device.tensor([[2, 0]], "i32")))).toEqual([5, 6, 1, 2]);
    expect(() => layer.forward(device.tensor([3], "i32"))).toThrow(
      "index 3 at position 0 is outside the table's 3 rows",
    );
  });

  it("RMSNorm and LayerNorm are their formulas, with weight, bias and eps", async () => {
    const x = device.tensor([[1, 2, 3, 6]], "f64");
    const rms = new RMSNorm({ dim: 4, eps: 0.5 }, f64());
    rms.weight.write(Float64Array.of(1, 1, 2, 1));
    const root = Math.sqrt(50 / 4 + 0.5);
    expect(await list(rms.forward(x))).toEqual([1, 2, 6, 6].map((v) => expect.closeTo(v / root, 12)));
    const layer = new LayerNorm({ dim: 4, eps: 0.5 }, f64());
    layer.bias.fillInPlace(1);
    const deviation = Math.sqrt(14 / 4 + 0.5);
    expect(await list(layer.forward(x))).toEqual([-2, -1, 0, 3].map((v) => expect.closeTo(v / deviation + 1, 12)));
  });
});

describe("gelu", () => {
  it("is x Phi(x), not its tanh approximation", async () => {
    // x Phi(x) to 15 digits.
    const values = [-3, -1, -0.5, 0, 0.5, 1, 2, 3];
    const exact = [
      -0.00404969409489031, -0.158655253931457, -0.154268769363102, 0, 0.345731230636898, 0.841344746068543,
      1.95449973610364, 2.99595030590511,
    ];
    const y = await list(gelu(device.tensor(values, "f64")));
    for (const [i, value] of y.entries()) expect(value).toBeCloseTo(exact[i], 12);
    const tanh = 0.5 * 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (2 + 0.044715 * 8)));
    expect(Math.abs(y[6] - tanh)).toBeGreaterThan(1e-5);
  });

  it("has the gradient Phi(x) + x phi(x)", async () => {
    const [, dx] = grad((x: Tensor) => gelu(x).sum())(device.tensor([-1, 0, 2], "f64"));
    const phi = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
    const Phi = [0.158655253931457, 0.5, 0.97724986805182];
    expect(await list(dx)).toEqual([-1, 0, 2].map((x, i) => expect.closeTo(Phi[i] + x * phi(x), 12)));
  });
});

describe("Dropout", () => {
  it("does nothing in evaluation and at rate 0, and in training keeps the mean", async () => {
    const layer = new Dropout(0.3, new Build({ device, seed: 1 }).at("drop"));
    const x = device.ones([100, 100]);
    const y = await list(layer.forward(x));
    expect(new Set(y)).toEqual(new Set([0, Math.fround(1 / 0.7)]));
    expect(y.filter((value) => value === 0).length / 10_000).toBeCloseTo(0.3, 1.5);
    expect(layer.eval().forward(x)).toBe(x);
    expect(new Dropout(0).forward(x)).toBe(x);
  });

  it("draws by seed, place and step", async () => {
    const x = device.ones([64]);
    const build = new Build({ device, seed: 1 });
    const draw = (build: Build) => list(new Dropout(0.5, build).forward(x));
    const first = await draw(build.at("a"));
    expect(await draw(new Build({ device, seed: 1 }).at("a"))).toEqual(first);
    expect(await draw(build.at("b"))).not.toEqual(first);
    expect(await draw(new Build({ device, seed: 2 }).at("a"))).not.toEqual(first);
    build.clock.step.fillInPlace(1);
    expect(await draw(build.at("a"))).not.toEqual(first);
    build.clock.step.fillInPlace(0);
    expect(await draw(build.at("a"))).toEqual(first);
  });

  it("has the gradient of the same mask", async () => {
    const layer = new Dropout(0.5, new Build({ device, seed: 1 }));
    const x = device.ones([64]);
    const y = await list(layer.forward(x));
    const [, dx] = grad((x: Tensor) => layer.forward(x).sum())(x);
    expect(await list(dx)).toEqual(y);
  });

  it("refuses what is no rate", () => {
    for (const p of [-0.1, 1, Number.NaN]) expect(() => new Dropout(p)).toThrow(`Dropout: ${p} is no rate`);
  });
});

describe("FeedForward", () => {
  it("is Linear, GELU, dropout, Linear, under the names of the released models", async () => {
    const layer = new FeedForward({ dModel: 3 }, f64());
    expect([...layer.namedParameters()].map(([name, { shape }]) => [name, [...shape]])).toEqual([
      ["ff.0.0.weight", [12, 3]],
      ["ff.0.0.bias", [12]],
      ["ff.2.weight", [3, 12]],
      ["ff.2.bias", [3]],
    ]);
    const x = device.tensor([[0.5, -1, 2]], "f64");
    expect(await list(layer.forward(x))).toEqual(await list(layer.down.forward(gelu(layer.up.forward(x)))));
  });

  it("drops hidden values in training alone", async () => {
    const layer = new FeedForward({ dModel: 2, dHidden: 50, dropout: 0.5 }, f64());
    layer.up.weight.fillInPlace(1);
    layer.down.weight.fillInPlace(1);
    const x = device.ones([1, 2], "f64");
    const training = await list(layer.forward(x));
    expect(await list(layer.forward(x))).toEqual(training);
    const evaluation = await list(layer.eval().forward(x));
    expect(training).not.toEqual(evaluation);
    const plain = new FeedForward({ dModel: 2, dHidden: 50 }, f64());
    plain.loadStateDict(await layer.stateDict());
    expect(await list(plain.forward(x))).toEqual(evaluation);
    expect(new Linear({ inFeatures: 2, outFeatures: 2, init: constant(7) }, f64()).weight.shape).toEqual([2, 2]);
  });
});
