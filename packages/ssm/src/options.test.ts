import { Build, type BuildOptions } from "@diffmamba/nn";
import { concat, type Device, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Call, differences, gradients, noise, outputs, randomize, relativeError } from "./checks.testing.js";
import { Mamba, type MambaOptions } from "./mamba.js";
import { Mamba2, type Mamba2Options } from "./mamba2.js";
import type { Mixer } from "./mixer.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const mamba: Partial<MambaOptions>[] = [
  {},
  { dtRank: 3, dState: 2, expand: 1, dConv: 2 },
  { dtInit: "constant", dtScale: 2, convBias: false },
  { bias: true },
  { learnableInitialState: true },
];

const mamba2: Partial<Mamba2Options>[] = [
  {},
  { dSsm: 4 },
  { dSsm: 4, rmsNorm: false, bias: true },
  { rmsNorm: false },
  { normBeforeGate: true },
  { dHasHeadDim: true },
  { learnableInitialState: true },
  { dtLimit: [0.3, 0.7] },
  { convBias: false, dConv: 2 },
  { bias: true },
  { nGroups: 2 },
  { nGroups: 2, normGroups: 1 },
  { nGroups: 2, learnableInitialState: true, dHasHeadDim: true, normBeforeGate: true, bias: true },
];

type Make = (chunkSize: number, options: BuildOptions) => Mixer;

const small = { dModel: 4, dState: 3, dConv: 3 };
const cases: [string, Make][] = [
  ...mamba.map((options): [string, Make] => [
    `Mamba ${JSON.stringify(options)}`,
    (chunkSize, build) => new Mamba({ ...small, ...options, chunkSize }, new Build({ device, ...build })),
  ]),
  ...mamba2.map((options): [string, Make] => [
    `Mamba2 ${JSON.stringify(options)}`,
    (chunkSize, build) => new Mamba2({ ...small, headDim: 4, ...options, chunkSize }, new Build({ device, ...build })),
  ]),
];

const wide = { dtype: "f64", seed: 1 } as const;

const parametersOf = ({ dtProj, aLog }: Mamba) => [dtProj.bias, aLog] as const;

/**
 * A mixer away from its first values, and an input of two rows. dt is around 0.5 and A around -0.6, so that limits and
 * decays matter and states last.
 */
function prepared(
  make: Make,
  chunkSize: number,
  dtype: "f32" | "f64" = "f64",
  length = 9,
): { mixer: Mixer; x: Tensor } {
  const mixer = make(chunkSize, { ...wide, dtype });
  randomize(mixer);
  const [bias, aLog] = mixer instanceof Mamba2 ? [mixer.dtBias, mixer.aLog] : parametersOf(mixer as Mamba);
  bias?.fillInPlace(-0.4);
  aLog.assign(noise(device, aLog.shape, "A_log", dtype, 0.5).sub(0.5));
  return { mixer, x: noise(device, [2, length, 4], "x", dtype) };
}

/** States away from zero. */
function someState(mixer: Mixer, batch: number, dtype: "f32" | "f64"): Tensor[] {
  return mixer.initialState(batch).map(({ shape }, i) => noise(device, shape, `state ${i}`, dtype));
}

describe("gradients are central differences", () => {
  it.each(cases)("%s", async (_, make) => {
    const { mixer, x } = prepared(make, 2, "f64", 4);
    // One row is one sequence, the other has two; a learned initial state is used where none is given.
    const seqIdx = device.tensor(
      [
        [0, 0, 0, 0],
        [5, 6, 6, 6],
      ],
      "i32",
    );
    const learns = mixer.namedParameters().has("init_states");
    const call: Call = { x, seqIdx, ...(!learns && { initialState: someState(mixer, 2, "f64") }) };
    const expected = await differences(mixer, call);
    for (const [name, actual] of await gradients(mixer, call)) {
      expect([name, relativeError(actual, expected.get(name) ?? [])]).toEqual([name, expect.closeTo(0, 7)]);
    }
  });

  it("reach a learned initial state, which a state that is given replaces", async () => {
    for (const [, make] of cases.filter(([name]) => name.includes("learnable"))) {
      const { mixer, x } = prepared(make, 2, "f64", 4);
      const free = await gradients(mixer, { x });
      const given = await gradients(mixer, { x, initialState: someState(mixer, 2, "f64") });
      expect(Math.max(...Array.from(free.get("init_states") ?? []).map(Math.abs))).toBeGreaterThan(0.01);
      expect(new Set(given.get("init_states") as Float64Array)).toEqual(new Set([0]));
    }
  });
});

describe.each([
  ["f64", 1e-12],
  ["f32", 1e-5],
] as const)("in %s the same comes", (dtype, tolerance) => {
  const expectSame = (actual: readonly ArrayLike<number>[], expected: readonly ArrayLike<number>[]) => {
    expect(actual.length).toBe(expected.length);
    for (const [i, own] of actual.entries()) expect(relativeError(own, expected[i])).toBeLessThan(tolerance);
  };

  it.each(cases)("step by step, after a prefill and at once, in any chunks: %s", async (_, make) => {
    const { mixer, x } = prepared(make, 64, dtype);
    const whole = await outputs(mixer, { x });
    for (const chunkSize of [1, 4, 9]) expectSame(await outputs(prepared(make, chunkSize, dtype).mixer, { x }), whole);
    for (const pieces of [
      [1, 1, 1, 1, 1, 1, 1, 1, 1],
      [5, 1, 1, 2],
    ]) {
      const state = mixer.initialState(2);
      const ys: Tensor[] = [];
      let at = 0;
      for (const length of pieces) {
        ys.push(mixer.advance(x.slice(1, at, at + length), state));
        at += length;
      }
      const read = [concat(ys, 1), ...state].map((tensor) => tensor.data());
      expectSame(await Promise.all(read), whole);
    }
  });

  it.each(cases)("packed and apart: %s", async (_, make) => {
    const { mixer, x } = prepared(make, 4, dtype);
    const seqIdx = device.tensor([[0, 0, 0, 2, 3, 3, 3, 3, 3], new Array(9).fill(1)], "i32");
    const initialState = someState(mixer, 2, dtype);
    const packed = await outputs(mixer, { x, seqIdx, initialState });
    const row = (tensor: Tensor, i: number) => tensor.slice(0, i, i + 1).contiguous();
    const first = row(x, 0);
    const zeros = initialState.map((state) => device.zeros([1, ...state.shape.slice(1)], dtype));
    const own = initialState.map((state) => row(state, 0));
    const parts = [
      await outputs(mixer, { x: first.slice(1, 0, 3), initialState: own }),
      await outputs(mixer, { x: first.slice(1, 3, 4), initialState: zeros }),
      await outputs(mixer, { x: first.slice(1, 4, 9), initialState: zeros }),
    ];
    const second = await outputs(mixer, { x: row(x, 1), initialState: initialState.map((state) => row(state, 1)) });
    const y = [...parts.flatMap(([part]) => Array.from(part)), ...Array.from(second[0])];
    const states = second.slice(1).map((state, i) => [...Array.from(parts[2][i + 1]), ...Array.from(state)]);
    expectSame(packed, [y, ...states]);
  });

  it.each(cases)("padded and cut: %s", async (_, make) => {
    const { mixer, x } = prepared(make, 4, dtype);
    const lengths = [6, 9];
    const padded = await outputs(mixer, { x, lengths: device.tensor(lengths, "i32") });
    const cut = await Promise.all(
      lengths.map((length, i) =>
        outputs(mixer, {
          x: x
            .slice(0, i, i + 1)
            .slice(1, 0, length)
            .contiguous(),
        }),
      ),
    );
    const [y, ...states] = padded;
    const rows = [Array.from(y).slice(0, 6 * 4), Array.from(y).slice(9 * 4)];
    for (const [i, own] of rows.entries()) expectSame([own], [cut[i][0]]);
    for (const [i, state] of states.entries()) {
      expectSame([state], [cut.flatMap((row) => Array.from(row[i + 1]))]);
    }
  });
});

describe("options", () => {
  it("have an effect each", async () => {
    const { x } = prepared(cases[mamba.length][1], 4);
    const [plain, ...others] = await Promise.all(
      mamba2.map(async (options) => {
        // Without biases and states of its own, every one of these mixers has the same random parameters.
        const mixer = new Mamba2({ ...small, headDim: 4, chunkSize: 4, ...options }, new Build({ device, ...wide }));
        randomize(mixer);
        return (await outputs(mixer, { x }))[0];
      }),
    );
    for (const y of others) expect(relativeError(y, plain)).toBeGreaterThan(1e-3);
  });

  it("give the shapes that checkpoints have", () => {
    const shapes = (options: Partial<Mamba2Options>) => {
      const mixer = new Mamba2({ dModel: 8, dState: 3, headDim: 4, ...options }, new Build({ device }));
      return Object.fromEntries([...mixer.namedParameters()].map(([name, { shape }]) => [name, [...shape]]));
    };
    expect(shapes({})).toEqual({
      "in_proj.weight": [16 + 16 + 6 + 4, 8],
      "conv1d.weight": [22, 4],
      "conv1d.bias": [22],
      dt_bias: [4],
      A_log: [4],
      D: [4],
      "norm.weight": [16],
      "out_proj.weight": [8, 16],
    });
    expect(shapes({ dSsm: 8, nGroups: 2, dHasHeadDim: true, rmsNorm: false, bias: true, convBias: false })).toEqual({
      "in_proj.weight": [2 * 16 + 12 + 2, 8],
      "in_proj.bias": [46],
      "conv1d.weight": [20, 4],
      dt_bias: [2],
      A_log: [2],
      D: [8],
      "out_proj.weight": [8, 16],
      "out_proj.bias": [8],
    });
    expect(shapes({ learnableInitialState: true }).init_states).toEqual([4, 4, 3]);
    const published = new Mamba2({ dModel: 8, headDim: 4 }, new Build({ device })).published();
    expect(published.find(({ name }) => name === "conv1d.weight")?.shape).toEqual([16 + 256, 1, 4]);
  });

  it("that do not fit together are named", () => {
    const make = (options: Partial<Mamba2Options>) => () =>
      new Mamba2({ dModel: 8, ...options }, new Build({ device }));
    expect(make({ headDim: 5 })).toThrow("Mamba2: 16 channels do not divide into heads of 5");
    expect(make({ headDim: 4, dSsm: 6 })).toThrow("Mamba2: 6 channels do not divide into heads of 4");
    expect(make({ headDim: 4, nGroups: 3 })).toThrow("Mamba2: 4 heads do not divide into 3 groups");
    expect(make({ headDim: 4, normGroups: 3 })).toThrow("16 channels do not divide into 3 groups of the gated norm");
  });
});

describe("the state", () => {
  it.each(cases.filter(([name]) => name.includes("learnable")))("begins with what is learned: %s", async (_, make) => {
    const { mixer } = prepared(make, 4);
    const [conv, scan] = mixer.initialState(2);
    expect(new Set(await conv.data())).toEqual(new Set([0]));
    const learned = Array.from(await (mixer.namedParameters().get("init_states") as Tensor).data());
    expect(Array.from(await scan.data())).toEqual([...learned, ...learned]);
    expect(learned.some((value) => value !== 0)).toBe(true);
  });

  it("is changed in place by advance, which leaves no tensor but its result", () => {
    const { mixer, x } = prepared(cases[0][1], 4);
    const state = mixer.initialState(2);
    const before = device.memory();
    mixer.advance(x, state).dispose();
    expect(device.memory()).toEqual({ ...before, peakBytes: expect.any(Number) });
  });

  it("of other shapes is refused by name", () => {
    const { mixer, x } = prepared(cases[mamba.length][1], 4);
    expect(() => mixer.forward(x, { initialState: mixer.initialState(3) })).toThrow(
      "initialState is (3, 14, 3); it must be (2, 14, 3)",
    );
  });
});
