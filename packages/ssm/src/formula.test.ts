// The mixers against their formulas in plain loops, written down again from the papers and state-spaces/mamba.

import { Build, type Parameter } from "@diffmamba/nn";
import { type Device, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { noise, randomize, relativeError } from "./checks.testing.js";
import { Mamba, type MambaOptions } from "./mamba.js";
import { Mamba2, type Mamba2Options } from "./mamba2.js";
import type { Mixer } from "./mixer.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

type Vector = number[];
type Read = (name: string) => Vector | undefined;

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const silu = (x: number) => x * sigmoid(x);
const softplus = (x: number) => Math.log1p(Math.exp(x));
const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** The parameters of a mixer as numbers, by name. */
async function parametersOf(mixer: Mixer): Promise<Read> {
  const found = new Map<string, Vector>();
  for (const [name, parameter] of mixer.namedParameters()) found.set(name, Array.from(await parameter.data()));
  return (name) => found.get(name);
}

/** W x + b */
function project(read: Read, name: string, x: Vector): Vector {
  const weight = read(`${name}.weight`) ?? [];
  const bias = read(`${name}.bias`);
  return range(weight.length / x.length).map((row) => {
    return x.reduce((sum, value, i) => sum + weight[row * x.length + i] * value, bias?.[row] ?? 0);
  });
}

/** silu(bias + sum_k w_k x_{t - W + 1 + k}) for each token, from nothing. */
function convolve(read: Read, tokens: readonly Vector[]): Vector[] {
  const weight = read("conv1d.weight") ?? [];
  const channels = tokens[0].length;
  const width = weight.length / channels;
  return tokens.map((_, t) =>
    range(channels).map((c) => {
      const taps = range(width).filter((k) => t - width + 1 + k >= 0);
      const sum = taps.reduce((s, k) => s + weight[c * width + k] * tokens[t - width + 1 + k][c], 0);
      return silu(sum + (read("conv1d.bias")?.[c] ?? 0));
    }),
  );
}

function cut(x: Vector, sizes: readonly number[]): Vector[] {
  let at = 0;
  return sizes.map((size) => {
    at += size;
    return x.slice(at - size, at);
  });
}

/** mamba2.py, one row of tokens. */
function mamba2ByHand(read: Read, options: Mamba2Options, tokens: readonly Vector[]): Vector[] {
  const { dModel, dState = 128, expand = 2, headDim = 64, nGroups = 1, normGroups = nGroups } = options;
  const { dSsm = expand * dModel, dtLimit = [0, Number.POSITIVE_INFINITY] } = options;
  const dMlp = expand * dModel - dSsm;
  const heads = dSsm / headDim;
  const sizes = [dMlp, dMlp, dSsm, dSsm + 2 * nGroups * dState, heads];
  const parts = tokens.map((token) => cut(project(read, "in_proj", token), sizes));
  const conv = convolve(
    read,
    parts.map((part) => part[3]),
  );
  const aLog = read("A_log") ?? [];
  const skip = read("D") ?? [];
  const learned = read("init_states") ?? new Array(dSsm * dState).fill(0);
  const state = [...learned];
  return parts.map(([z0, x0, z, , dtRaw], t) => {
    const [x, B, C] = cut(conv[t], [dSsm, nGroups * dState, nGroups * dState]);
    const y = range(dSsm).map((c) => {
      const h = Math.floor(c / headDim);
      const g = Math.floor((h * nGroups) / heads);
      const dt = Math.min(Math.max(softplus(dtRaw[h] + (read("dt_bias") ?? [])[h]), dtLimit[0]), dtLimit[1]);
      let sum = 0;
      for (const n of range(dState)) {
        const at = c * dState + n;
        state[at] = Math.exp(-dt * Math.exp(aLog[h])) * state[at] + dt * x[c] * B[g * dState + n];
        sum += state[at] * C[g * dState + n];
      }
      return sum + (options.dHasHeadDim ? skip[c] : skip[h]) * x[c];
    });
    const weight = read("norm.weight");
    const gated = y.map((value, c) => (options.normBeforeGate && weight ? value : value * silu(z[c])));
    const size = dSsm / normGroups;
    const normed = gated.map((value, c) => {
      if (weight === undefined) return value;
      const first = Math.floor(c / size) * size;
      const mean = gated.slice(first, first + size).reduce((sum, v) => sum + v * v, 0) / size;
      const scaled = (value / Math.sqrt(mean + (options.normEps ?? 1e-5))) * weight[c];
      return options.normBeforeGate ? scaled * silu(z[c]) : scaled;
    });
    return project(read, "out_proj", [...z0.map((value, c) => silu(value) * x0[c]), ...normed]);
  });
}

/** mamba_simple.py, one row of tokens. */
function mambaByHand(read: Read, { dtRank, dInner, dState }: Mamba, tokens: readonly Vector[]): Vector[] {
  const parts = tokens.map((token) => cut(project(read, "in_proj", token), [dInner, dInner]));
  const conv = convolve(
    read,
    parts.map((part) => part[0]),
  );
  const aLog = read("A_log") ?? [];
  const state = [...(read("init_states") ?? new Array(dInner * dState).fill(0))];
  return parts.map(([, z], t) => {
    const x = conv[t];
    const [low, B, C] = cut(project(read, "x_proj", x), [dtRank, dState, dState]);
    const dt = project(read, "dt_proj", low).map(softplus);
    const y = x.map((value, c) => {
      let sum = 0;
      for (const n of range(dState)) {
        const at = c * dState + n;
        state[at] = Math.exp(-dt[c] * Math.exp(aLog[at])) * state[at] + dt[c] * value * B[n];
        sum += state[at] * C[n];
      }
      return (sum + (read("D") ?? [])[c] * value) * silu(z[c]);
    });
    return project(read, "out_proj", y);
  });
}

const length = 7;

async function check(mixer: Mixer, byHand: (read: Read, tokens: readonly Vector[]) => Vector[]): Promise<void> {
  randomize(mixer);
  const { aLog } = mixer as Mixer & { aLog: Parameter };
  aLog.assign(noise(device, aLog.shape, "A_log", "f64", 0.5));
  const x: Tensor = noise(device, [2, length, 4], "x", "f64");
  const data = Array.from(await x.data());
  const read = await parametersOf(mixer);
  const rows = [0, 1].map((row) =>
    range(length).map((t) => data.slice((row * length + t) * 4, (row * length + t + 1) * 4)),
  );
  const expected = rows.flatMap((row) => byHand(read, row).flat());
  const actual = await mixer.forward(x).data();
  expect(relativeError(actual, expected)).toBeLessThan(1e-12);
}

const small = { dModel: 4, dState: 3, dConv: 3, chunkSize: 3 };

describe("Mamba2 is its formula", () => {
  it.each<Partial<Mamba2Options>>([
    {},
    { dSsm: 4 },
    { dSsm: 4, rmsNorm: false, bias: true },
    { rmsNorm: false },
    { normBeforeGate: true, normEps: 0.1 },
    { dHasHeadDim: true },
    { learnableInitialState: true },
    { dtLimit: [0.5, 0.8] },
    { convBias: false, dConv: 2, bias: true },
    { nGroups: 2 },
    { nGroups: 2, normGroups: 1, expand: 3, headDim: 2 },
    {
      nGroups: 2,
      learnableInitialState: true,
      dHasHeadDim: true,
      normBeforeGate: true,
      bias: true,
      dSsm: 4,
      headDim: 2,
    },
  ])("with %j", async (options) => {
    const all = { ...small, headDim: 4, ...options };
    const mixer = new Mamba2(all, new Build({ device, dtype: "f64", seed: 1 }));
    await check(mixer, (read, tokens) => mamba2ByHand(read, all, tokens));
  });
});

describe("Mamba is its formula", () => {
  it.each<Partial<MambaOptions>>([
    {},
    { dtRank: 3, dState: 2, expand: 1, dConv: 2 },
    { convBias: false, bias: true },
    { learnableInitialState: true },
  ])("with %j", async (options) => {
    const mixer = new Mamba({ ...small, ...options }, new Build({ device, dtype: "f64", seed: 1 }));
    await check(mixer, (read, tokens) => mambaByHand(read, mixer, tokens));
  });
});
