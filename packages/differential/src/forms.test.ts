// The fused form of N-Diff-Mamba-2 against its two branches: output, states, gradients, and the conversion between them.

import { Build, type Parameter } from "@diffmamba/nn";
import { concat, type Device, grad, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Float, type Numbers, noise, randomize, relativeError, run } from "./checks.testing.js";
import { finish } from "./combine.js";
import { toFused, toTwoBranch } from "./convert.js";
import { DiffMamba2, type DiffMamba2Options } from "./diffMamba2.js";
import { type LambdaMode, lambdaInit } from "./lambda.js";
import { DiffMamba2TwoBranch } from "./twoBranch.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const base: DiffMamba2Options = { dModel: 12, dState: 4, headDim: 3, chunkSize: 4, layerIndex: 2 };
const [batch, length] = [2, 9];

interface Case extends Partial<DiffMamba2Options> {
  readonly packed?: boolean;
  readonly padded?: boolean;
  readonly stateful?: boolean;
}

const cases: Case[] = [
  { lambda: "vecsum" },
  { lambda: "scalar" },
  { lambda: "channel" },
  { lambda: "none" },
  { lambda: "channel", subln: false, stateful: true },
  { lambda: "none", subln: false, padded: true },
  { nGroups: 2, packed: true, stateful: true },
  { nGroups: 2, normGroups: 1 },
  { lambda: "scalar", packed: true, padded: true, stateful: true, expand: 2 },
  { rmsNorm: false, dtLimit: [0.2, 0.9], convBias: false },
  { normBeforeGate: true, dHasHeadDim: true, learnableInitialState: true },
];

/** A state of the fused form from the two branches': of [x | B | C] channels, or of heads, the first's then the second's. */
function fuseState(states: readonly Tensor[], { dSsm, nGroups, dState }: DiffMamba2["inner"]): Tensor[] {
  const [conv1, scan1, conv2, scan2] = states;
  const sizes = [dSsm / 2, (nGroups * dState) / 2, (nGroups * dState) / 2];
  const [first, second] = [conv1, conv2].map((conv) => conv.split(sizes, 1));
  return [
    concat(
      first.flatMap((part, i) => [part, second[i]]),
      1,
    ),
    concat([scan1, scan2], 1),
  ];
}

/** Both forms with the same parameters, and the same call of each. */
async function bothForms({ packed, padded, stateful, ...options }: Case, dtype: Float) {
  const build = new Build({ device, dtype, seed: 3 });
  const fused = new DiffMamba2({ ...base, ...options }, build);
  randomize(fused);
  const branches = await toTwoBranch(fused);
  const x = noise(device, [batch, length, base.dModel], "x", dtype);
  const sequence = {
    ...(packed && { seqIdx: device.tensor([new Array(length).fill(4), [0, 0, 1, 2, 2, 2, 2, 2, 3]], "i32") }),
    ...(padded && { lengths: device.tensor([length, 5], "i32") }),
  };
  const like = branches.initialState(batch);
  const some = (name: string) => like.map(({ shape }, i) => noise(device, shape, `${name} ${i}`, dtype));
  const yWeights = noise(device, x.shape, "weights", dtype);
  const [initial, weights] = [some("state"), some("state weights")];
  return {
    fused: await run(fused, { x, ...sequence, ...(stateful && { initialState: fuseState(initial, fused.inner) }) }, [
      yWeights,
      ...fuseState(weights, fused.inner),
    ]),
    branches: await run(branches, { x, ...sequence, ...(stateful && { initialState: initial }) }, [
      yWeights,
      ...weights,
    ]),
    /** Numbers of the two branches' states as the fused form lays them out. */
    fuse: async (states: readonly Numbers[]) => {
      const tensors = states.map((data, i) => device.from(Float64Array.from(data), like[i].shape, "f64"));
      return Promise.all(fuseState(tensors, fused.inner).map((tensor) => tensor.data()));
    },
  };
}

describe.each([
  ["f64", 1e-12, 1e-11],
  ["f32", 1e-5, 1e-4],
] as const)("fused = two branches, in %s", (dtype, forward, gradient) => {
  it.each(cases)("%j", async (options) => {
    const { fused, branches, fuse } = await bothForms(options, dtype);
    const check = (name: string, actual: Numbers, expected: Numbers, tolerance: number) => {
      const error = relativeError(actual, expected);
      expect(error <= tolerance, `${name}: relative error ${error}`).toBe(true);
    };
    check("y", fused.y, branches.y, forward);
    for (const [i, state] of (await fuse(branches.state)).entries())
      check(`state ${i}`, fused.state[i], state, forward);

    const of = (gradients: ReadonlyMap<string, Numbers>) =>
      [...gradients].filter(([name]) => !name.startsWith("initial"));
    expect(
      of(fused.gradients)
        .map(([name]) => name)
        .sort(),
    ).toEqual(
      of(branches.gradients)
        .map(([name]) => name)
        .sort(),
    );
    for (const [name, expected] of of(branches.gradients)) {
      check(`gradient of ${name}`, fused.gradients.get(name) ?? [], expected, gradient);
    }
    if (options.stateful) {
      const apart = [0, 1, 2, 3].map((i) => branches.gradients.get(`initialState ${i}`) ?? []);
      for (const [i, expected] of (await fuse(apart)).entries()) {
        check(`gradient of state ${i}`, fused.gradients.get(`initialState ${i}`) ?? [], expected, gradient);
      }
    }
  });
});

describe("lambda", () => {
  const modes: LambdaMode[] = ["vecsum", "scalar", "channel"];

  it.each(modes)("is sigmoid(s) + lambda_init, in mode %s", async (lambda) => {
    const mixer = new DiffMamba2({ ...base, lambda }, new Build({ device, dtype: "f64", seed: 1 }));
    const q1 = Array.from(await (mixer.lambdaQ1 as Parameter).data());
    const sums = lambda === "vecsum" ? [q1.reduce((sum, value) => sum + value, 0)] : q1;
    expect(q1.length).toBe(lambda === "scalar" ? 1 : 12);
    const value = mixer.lambda();
    expect(value.size).toBe(sums.length);
    const initial = 0.8 - 0.6 * Math.exp(-0.3 * 2);
    expect(mixer.lambdaInit).toBe(initial);
    for (const [i, own] of (await value.data()).entries()) {
      expect(own).toBeCloseTo(1 / (1 + Math.exp(-sums[i])) + initial, 12);
    }
  });

  it("is not there in the control without it, which adds the branches and has as many parameters less", () => {
    const count = (lambda: LambdaMode) => new DiffMamba2({ ...base, lambda }, new Build({ device })).parameterCount();
    expect(count("vecsum") - count("none")).toBe(12);
    expect(count("channel") - count("none")).toBe(12);
    expect(count("scalar") - count("none")).toBe(1);
    const control = new DiffMamba2({ ...base, lambda: "none" }, new Build({ device }));
    expect(() => control.lambda()).toThrow('DiffMamba2: there is no lambda in mode "none"');
  });

  // sigma'(s) = sigma(s) sigma(-s): 6.1e-6 at s = 12, where sigma (1 - sigma) has lost half of its digits in f32.
  describe.each([12, -12])("saturated, s = %d", (s) => {
    it.each([
      ["f64", 1e-10],
      ["f32", 1e-5],
    ] as const)("has the gradient sigma(s) sigma(-s) dloss/dlambda in %s", async (dtype, tolerance) => {
      const sigma = (x: number) => 1 / (1 + Math.exp(-x));
      for (const lambda of ["vecsum", "scalar"] as const) {
        const mixer = new DiffMamba2({ ...base, lambda, subln: false }, new Build({ device, dtype, seed: 3 }));
        const q1 = mixer.lambdaQ1 as Parameter;
        q1.fillInPlace(s / q1.size);
        const branches = await toTwoBranch(mixer);
        const x = noise(device, [batch, length, base.dModel], "x", dtype);
        const m2 = branches.m2.forward(x);
        // Weights along m2, so that the sum over tokens and channels does not cancel.
        const weights = m2.add(noise(device, x.shape, "w", dtype, 0.1));
        const [value, dLambda] = grad((own: Tensor) =>
          finish(branches.m1.forward(x).sub(m2.mul(own)), undefined, mixer.lambdaInit)
            .mul(weights)
            .sum(),
        )(device.full([], sigma(s) + mixer.lambdaInit, dtype));
        expect(await value.item()).not.toBe(0);
        const expected = (await dLambda.item()) * sigma(s) * sigma(-s);
        const weightSum = [weights, ...mixer.initialState(batch).map(({ shape }) => device.zeros(shape, dtype))];
        const { gradients } = await run(mixer, { x }, weightSum);
        const found = Array.from(gradients.get("lambda_q1") ?? []);
        expect(found.length).toBe(q1.size);
        for (const own of found) expect(Math.abs(own / expected - 1)).toBeLessThan(tolerance);
      }
    });
  });
});

describe("conversion", () => {
  const bits = async (mixer: DiffMamba2 | DiffMamba2TwoBranch) => new Map([...(await mixer.stateDict())].sort());

  it.each<Partial<DiffMamba2Options>>([
    {},
    { lambda: "channel", nGroups: 2, dHasHeadDim: true, learnableInitialState: true },
    { lambda: "none", subln: false, convBias: false, rmsNorm: false, branchNames: ["m1", "m2"] },
  ])("fused, published, two branches, published, fused is the same bits: %j", async (options) => {
    for (const dtype of ["f32", "f64"] as const) {
      const fused = new DiffMamba2({ ...base, ...options }, new Build({ device, dtype, seed: 1 }));
      randomize(fused);
      const branches = await toTwoBranch(fused);
      const again = await toFused(branches);
      expect(await bits(branches)).toEqual(await bits(fused));
      expect(await bits(again)).toEqual(await bits(fused));
      const [before, after] = [fused.parameters(), again.parameters()];
      for (const [i, parameter] of before.entries())
        expect(await after[i].hostData()).toEqual(await parameter.hostData());
      expect(again.parameterCount()).toBe(branches.parameterCount());
    }
  });

  it("publishes what two Mamba-2 mixers, lambda and the norm have, under the names of both released codes", () => {
    const shapes = (branchNames: readonly [string, string]) => {
      const mixer = new DiffMamba2({ dModel: 8, dState: 4, headDim: 2, branchNames }, new Build({ device }));
      return new Map(mixer.published().map(({ name, ...entry }) => [name, { name, ...entry }]));
    };
    const names = [...shapes(["mixer_1", "mixer_2"]).keys()].sort();
    const own = [
      "in_proj.weight",
      "conv1d.weight",
      "conv1d.bias",
      "dt_bias",
      "A_log",
      "D",
      "norm.weight",
      "out_proj.weight",
    ];
    const expected = [1, 2].flatMap((i) => own.map((name) => `mixer_${i}.${name}`));
    expect(names).toEqual([...expected, "lambda_q1", "subln.weight"].sort());
    expect(shapes(["m1", "m2"]).has("m2.in_proj.weight")).toBe(true);
    const fused = new DiffMamba2({ dModel: 8, dState: 4, headDim: 2 }, new Build({ device }));
    const branches = new DiffMamba2TwoBranch({ dModel: 8, dState: 4, headDim: 2 }, new Build({ device }));
    expect(fused.parameterCount()).toBe(branches.parameterCount());
  });

  it("refuses biases of the projections by name, which the two branches may have", async () => {
    const options = { ...base, bias: true };
    expect(() => new DiffMamba2(options, new Build({ device }))).toThrow(
      "DiffMamba2: bias: true; the fused form has no",
    );
    const branches = new DiffMamba2TwoBranch(options, new Build({ device }));
    await expect(toFused(branches)).rejects.toThrow("DiffMamba2: bias: true");
  });
});

describe("lambda_init", () => {
  it("is the paper's, for the mixers of the small models (sublayers from 1) and of the 370M model (blocks from 0)", () => {
    // i -> lambda_init: every third sublayer is a feed-forward.
    const small = {
      1: 0.2,
      2: 0.3555,
      4: 0.5561,
      5: 0.6193,
      7: 0.7008,
      8: 0.7265,
      10: 0.7597,
      11: 0.7701,
      13: 0.7836,
      14: 0.7879,
      16: 0.7933,
      17: 0.7951,
    };
    for (const [i, value] of Object.entries(small)) expect(lambdaInit(Number(i) - 1).toFixed(4)).toBe(value.toFixed(4));
    const large = { 0: 0.2, 2: 0.4707, 4: 0.6193, 6: 0.7008, 8: 0.7456, 46: 0.8 };
    for (const [i, value] of Object.entries(large)) expect(lambdaInit(Number(i)).toFixed(4)).toBe(value.toFixed(4));
  });
});
