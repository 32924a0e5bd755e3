// What holds for every differential mixer: step by step = whole, any chunks, packed = apart, padded = cut; and each form
// against its formula.

import { Build } from "@diffmamba/nn";
import { Mamba, type Mixer } from "@diffmamba/ssm";
import { concat, type Device, reference, rmsNorm, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Numbers, noise, outputs, randomize, relativeError } from "./checks.testing.js";
import { DiffMamba2 } from "./diffMamba2.js";
import { DiffMamba2E } from "./diffMamba2E.js";
import { DiffS6 } from "./diffS6.js";
import { DiffS6Mamba2 } from "./diffS6Mamba2.js";
import { DiffMamba, DiffMamba2TwoBranch } from "./twoBranch.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const sizes = { dModel: 8, dState: 4, headDim: 4 };
const makers: [string, (chunkSize: number, build: Build) => Mixer][] = [
  ["DiffMamba2", (chunkSize, build) => new DiffMamba2({ ...sizes, chunkSize }, build)],
  ["DiffMamba2 of two groups", (chunkSize, build) => new DiffMamba2({ ...sizes, nGroups: 2, chunkSize }, build)],
  ["DiffMamba2TwoBranch", (chunkSize, build) => new DiffMamba2TwoBranch({ ...sizes, chunkSize }, build)],
  ["DiffMamba", (chunkSize, build) => new DiffMamba({ dModel: 8, dState: 4, chunkSize }, build)],
  ["DiffS6", (chunkSize, build) => new DiffS6({ dModel: 8, dState: 4, chunkSize }, build)],
  ["DiffS6Mamba2", (chunkSize, build) => new DiffS6Mamba2({ ...sizes, chunkSize, lambda: "channel" }, build)],
  ["DiffS6Mamba2, control", (chunkSize, build) => new DiffS6Mamba2({ ...sizes, chunkSize, lambda: "none" }, build)],
  ["DiffMamba2E", (chunkSize, build) => new DiffMamba2E({ ...sizes, chunkSize, lambda: "channel" }, build)],
  [
    "DiffMamba2E, control",
    (chunkSize, build) => new DiffMamba2E({ ...sizes, chunkSize, lambda: "none", subln: false }, build),
  ],
];

function made(make: (typeof makers)[0][1], chunkSize: number): Mixer {
  const mixer = make(chunkSize, new Build({ device, dtype: "f64", seed: 1 }));
  randomize(mixer);
  return mixer;
}

const row = (tensor: Tensor, i: number) => tensor.slice(0, i, i + 1).contiguous();

function expectSame(actual: readonly Numbers[], expected: readonly Numbers[]) {
  expect(actual.length).toBe(expected.length);
  for (const [i, own] of actual.entries()) expect(relativeError(own, expected[i])).toBeLessThan(1e-11);
}

describe.each(makers)("%s", (_, make) => {
  const input = () => noise(device, [2, 9, 8], "x", "f64");

  it("gives the same step by step, after a prefill and at once, in any chunks", async () => {
    const x = input();
    const mixer = made(make, 64);
    const whole = await outputs(mixer, { x });
    for (const chunkSize of [1, 4]) expectSame(await outputs(made(make, chunkSize), { x }), whole);
    for (const pieces of [new Array<number>(9).fill(1), [6, 1, 2]]) {
      const state = mixer.initialState(2);
      let at = 0;
      const ys = pieces.map((length) => {
        const y = mixer.advance(x.slice(1, at, at + length), state);
        at += length;
        return y;
      });
      expectSame(await Promise.all([concat(ys, 1), ...state].map((tensor) => tensor.data())), whole);
    }
  });

  it("gives the same packed and apart, padded and cut", async () => {
    const x = input();
    const mixer = made(make, 4);
    const first = row(x, 0);
    const initialState = mixer.initialState(1).map(({ shape }, i) => noise(device, shape, `state ${i}`, "f64"));
    const seqIdx = device.tensor([[0, 0, 0, 2, 3, 3, 3, 3, 3]], "i32");
    const packed = await outputs(mixer, { x: first, seqIdx, initialState });
    const parts = [
      await outputs(mixer, { x: first.slice(1, 0, 3), initialState }),
      await outputs(mixer, { x: first.slice(1, 3, 4) }),
      await outputs(mixer, { x: first.slice(1, 4, 9) }),
    ];
    expectSame(packed, [parts.flatMap(([y]) => Array.from(y)), ...parts[2].slice(1)]);

    const [y, ...states] = await outputs(mixer, { x, lengths: device.tensor([6, 9], "i32") });
    const cut = [
      await outputs(mixer, { x: first.slice(1, 0, 6).contiguous() }),
      await outputs(mixer, { x: row(x, 1) }),
    ];
    expectSame([Array.from(y).slice(0, 48), Array.from(y).slice(72)], [cut[0][0], cut[1][0]]);
    expectSame(
      states,
      states.map((_, i) => cut.flatMap((own) => Array.from(own[i + 1]))),
    );
  });

  it("leaves no tensor behind", async () => {
    const x = input();
    const mixer = made(make, 4);
    const before = device.memory().tensors;
    mixer.forward(x).dispose();
    const state = mixer.initialState(2);
    mixer.advance(x, state).dispose();
    for (const tensor of state) tensor.dispose();
    expect(device.memory().tensors).toBe(before);
  });
});

describe("formulas", () => {
  const f64 = () => new Build({ device, dtype: "f64", seed: 1 });
  const error = async (actual: Tensor, expected: Tensor) => relativeError(await actual.data(), await expected.data());

  it("N-Diff-Mamba-1: (1 - lambda_init) RMSNorm(m1 - lambda m2), lambda = exp(q1 k1) - exp(q2 k2) + lambda_init", async () => {
    const mixer = new DiffMamba({ dModel: 8, dState: 4, layerIndex: 3, lambdaStd: 1 }, f64());
    const x = noise(device, [1, 5, 8], "x", "f64");
    const [q1, k1, q2, k2] = await Promise.all(
      [mixer.lambdaQ1, mixer.lambdaK1, mixer.lambdaQ2, mixer.lambdaK2].map((vector) => vector.data()),
    );
    const dot = (a: Numbers, b: Numbers) => Array.from(a).reduce((sum, value, i) => sum + value * b[i], 0);
    const lambda = Math.exp(dot(q1, k1)) - Math.exp(dot(q2, k2)) + mixer.lambdaInit;
    expect(await mixer.lambda().item()).toBeCloseTo(lambda, 12);
    const p = mixer.m1.forward(x).sub(mixer.m2.forward(x).mul(lambda));
    const expected = rmsNorm(p, device.ones([8], "f64")).mul(1 - mixer.lambdaInit);
    expect(await error(mixer.forward(x), expected)).toBeLessThan(1e-12);
    expect(mixer.m1).toBeInstanceOf(Mamba);
  });

  it("without subln the factor 1 - lambda_init stays", async () => {
    const options = { ...sizes, layerIndex: 4 };
    const withNorm = new DiffMamba2TwoBranch(options, f64());
    const without = new DiffMamba2TwoBranch({ ...options, subln: false }, f64());
    const x = noise(device, [1, 5, 8], "x", "f64");
    const plain = without.forward(x);
    const normed = rmsNorm(plain.mul(1 / (1 - without.lambdaInit)), device.ones([8], "f64")).mul(
      1 - without.lambdaInit,
    );
    expect(await error(withNorm.forward(x), normed)).toBeLessThan(1e-12);
    expect(without.lambdaInit).toBeCloseTo(0.6193, 4);
  });

  it('"E": the second half of the output minus lambda times the first, twice', async () => {
    const mixer = new DiffMamba2E({ ...sizes, lambda: "scalar", subln: false }, f64());
    const x = noise(device, [1, 5, 8], "x", "f64");
    const y = mixer.outProj.forward(mixer.mix(x).y);
    const p = y.slice(-1, 4, 8).sub(y.slice(-1, 0, 4).mul(await mixer.lambda().item()));
    expect(await error(mixer.forward(x), concat([p, p]).mul(1 - mixer.lambdaInit))).toBeLessThan(1e-12);
  });

  it("names sizes that cannot be", () => {
    const build = new Build({ device });
    expect(() => new DiffMamba2E({ dModel: 7, headDim: 7 }, build)).toThrow("DiffMamba2E: 7 channels cannot be halved");
    expect(() => new DiffS6Mamba2({ dModel: 8, headDim: 5 }, build)).toThrow(
      "16 channels do not divide into heads of 5",
    );
    expect(() => new DiffS6Mamba2({ ...sizes, lambda: "none" }, build).lambda()).toThrow('no lambda in mode "none"');
    expect(() => new DiffMamba2E({ ...sizes, lambda: "none" }, build).lambda()).toThrow('no lambda in mode "none"');
  });
});
