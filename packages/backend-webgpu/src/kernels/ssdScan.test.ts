// The Mamba-2 scan: several pieces of time, chunks that are longer and shorter than a piece, heads and states of more than a tile, rows in
// fours and not, groups of several blocks of heads, packed and padded.

import { type SsdTensors, ssdScan } from "@diffmamba/tensor";
import { expect, it, vi } from "vitest";
import { describeThoroughly } from "./device.testing.js";
import { expectLikeReference, numbers, whole } from "./routines.testing.js";

// A driver on the processor compiles the shaders of a first test for half a minute, and longer beside other work.
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

interface Size {
  readonly name: string;
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headDim: number;
  readonly state: number;
  readonly groups: number;
  readonly chunkSize: number;
}

const sizes: readonly Size[] = [
  {
    name: "several chunks of a piece each",
    batch: 2,
    length: 150,
    heads: 4,
    headDim: 8,
    state: 16,
    groups: 2,
    chunkSize: 64,
  },
  {
    name: "chunks of several pieces",
    batch: 1,
    length: 300,
    heads: 2,
    headDim: 4,
    state: 4,
    groups: 1,
    chunkSize: 130,
  },
  {
    name: "one by one, in short chunks",
    batch: 2,
    length: 31,
    heads: 6,
    headDim: 5,
    state: 7,
    groups: 2,
    chunkSize: 7,
  },
  {
    name: "heads and states of several tiles",
    batch: 1,
    length: 20,
    heads: 2,
    headDim: 68,
    state: 132,
    groups: 1,
    chunkSize: 16,
  },
  { name: "a single token", batch: 2, length: 1, heads: 4, headDim: 8, state: 16, groups: 2, chunkSize: 64 },
];

const inputsOf = ({ batch, length, heads, headDim, state, groups }: Size) => ({
  x: numbers([batch, length, heads, headDim], -2, 2),
  dt: numbers([batch, length, heads], -3, 1),
  A: numbers([heads], -3, -0.1),
  B: numbers([batch, length, groups, state]),
  C: numbers([batch, length, groups, state]),
  D: numbers([heads, headDim]),
  z: numbers([batch, length, heads, headDim], -3, 3),
  dtBias: numbers([heads], -1, 0),
  initialState: numbers([batch, heads, headDim, state]),
});

/** Sequences of irregular lengths. */
function sequences({ batch, length }: Size): number[] {
  return Array.from({ length: batch * length }, (_, i) => Math.floor(((i % length) + (i / length) * 3) / 37));
}

/** A row that ends before its last chunk, one that is empty, and one of a token. */
function ends({ batch, length }: Size): number[] {
  return Array.from({ length: batch }, (_, b) => [Math.ceil(length / 2), 0, 1][b % 3]);
}

describeThoroughly("ssdScan on WebGPU", (device) => {
  for (const size of sizes) {
    const { name, batch, length, chunkSize } = size;
    it(name, () =>
      expectLikeReference(device(), {
        inputs: inputsOf(size),
        compute: (tensors) => ({ ...ssdScan(tensors, { chunkSize }) }),
        tolerance: 2e-5,
      }),
    );

    it(`${name}, packed and padded, without a gate`, () => {
      const { z: _, ...inputs } = inputsOf(size);
      return expectLikeReference(device(), {
        inputs,
        constants: { seqIdx: whole([batch, length], sequences(size)), lengths: whole([batch], ends(size)) },
        compute: ({ seqIdx, lengths, ...tensors }) => ({ ...ssdScan(tensors, { chunkSize, seqIdx, lengths }) }),
        tolerance: 2e-5,
      });
    });
  }

  it("without anything optional, dt as it is, within limits", () => {
    const { x, dt, A, B, C } = inputsOf(sizes[0]);
    return expectLikeReference(device(), {
      inputs: { x, dt: numbers(dt.shape, 0.05, 0.5), A, B, C },
      compute: (tensors) => ({ ...ssdScan(tensors, { dtSoftplus: false, dtLimit: [0.1, 0.4] }) }),
      tolerance: 2e-5,
    });
  });

  it("D by head; a loss of the final state alone, and of the output alone", async () => {
    const { heads } = sizes[0];
    for (const output of ["y", "finalState"] as const) {
      await expectLikeReference(device(), {
        inputs: { ...inputsOf(sizes[0]), D: numbers([heads]) },
        compute: (tensors) => ({ [output]: ssdScan(tensors)[output] }),
        tolerance: 2e-5,
      });
    }
  });

  it("decays that leave nothing, and sums of dt A beyond the range of e^-x", () => {
    const { A: _, ...inputs } = inputsOf(sizes[0]);
    const { heads } = sizes[0];
    return expectLikeReference(device(), {
      inputs: { ...inputs, A: numbers([heads], -60, -20) },
      compute: (tensors) => ({ ...ssdScan(tensors) }),
      tolerance: 2e-5,
    });
  });

  it("leaves what is padding alone, whatever it holds", async () => {
    const size = { ...sizes[0], batch: 1, length: 80 };
    const { x, dt, A, B, C } = inputsOf(size);
    const place = ({ shape, data }: typeof x) => device().from(Array.from(data), shape);
    const poisoned = (input: typeof x) => {
      const row = input.data.length / 80;
      return place({ ...input, data: Array.from(input.data, (v, i) => (i >= 70 * row ? Number.NaN : v)) });
    };
    const given = {
      x: poisoned(x),
      dt: poisoned(dt),
      A: place(A),
      B: poisoned(B),
      C: poisoned(C),
    } satisfies SsdTensors;
    using lengths = device().from([70], [1], "i32");
    const { y, finalState } = ssdScan(given, { lengths });
    const values = Array.from(await y.data());
    expect(values.every(Number.isFinite)).toBe(true);
    expect(values.slice((70 * values.length) / 80).every((v) => v === 0)).toBe(true);
    expect(Array.from(await finalState.data()).every(Number.isFinite)).toBe(true);
    for (const tensor of [...Object.values(given), y, finalState]) tensor.dispose();
  });

  it("token by token is the same as at once, the state replaced in place", async () => {
    const size = { ...sizes[0], length: 5 };
    const { z: _, initialState, ...inputs } = inputsOf(size);
    const place = ({ shape, data }: { shape: readonly number[]; data: ArrayLike<number> }) =>
      device().from(Array.from(data), shape);
    const { x, dt, A, B, C, D, dtBias } = Object.fromEntries(
      Object.entries(inputs).map(([name, input]) => [name, place(input)]),
    ) as Record<keyof typeof inputs, ReturnType<typeof place>>;
    using start = place(initialState);
    using state = place(initialState);
    const atOnce = ssdScan({ x, dt, A, B, C, D, dtBias, initialState: start });
    for (let t = 0; t < 5; t++) {
      const [xt, dtt, Bt, Ct] = [x, dt, B, C].map((tensor) => tensor.slice(1, t, t + 1));
      const { y, finalState } = ssdScan(
        { x: xt, dt: dtt, A, B: Bt, C: Ct, D, dtBias, initialState: state },
        { replacesState: true },
      );
      using part = atOnce.y.slice(1, t, t + 1);
      const [got, expected] = [await y.data(), await part.data()];
      for (let i = 0; i < got.length; i++) expect(Math.abs(got[i] - expected[i])).toBeLessThan(1e-5);
      for (const tensor of [xt, dtt, Bt, Ct, y, finalState]) tensor.dispose();
    }
    const [got, expected] = [await state.data(), await atOnce.finalState.data()];
    for (let i = 0; i < got.length; i++) expect(Math.abs(got[i] - expected[i])).toBeLessThan(1e-5);
    for (const tensor of [x, dt, A, B, C, D, dtBias, atOnce.y, atOnce.finalState]) tensor.dispose();
  });
});
