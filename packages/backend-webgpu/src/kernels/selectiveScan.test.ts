// The selective scan: several pieces of time, chunks that are longer and shorter than a piece, stretches of channels and a rest, groups,
// counts of states that do and do not fill fours and teams, packed and padded.

import { type SelectiveScanTensors, selectiveScan } from "@diffmamba/tensor";
import { expect, it, vi } from "vitest";
import { describeThoroughly } from "./device.testing.js";
import { expectLikeReference, numbers, whole } from "./routines.testing.js";

// A driver on the processor compiles the shaders of a first test for half a minute, and longer beside other work.
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

interface Size {
  readonly name: string;
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly states: number;
  readonly groups: number;
  readonly chunkSize: number;
}

const sizes: readonly Size[] = [
  { name: "several chunks of a piece each", batch: 2, length: 150, channels: 6, states: 16, groups: 1, chunkSize: 64 },
  { name: "chunks of several pieces", batch: 2, length: 300, channels: 5, states: 4, groups: 1, chunkSize: 130 },
  { name: "stretches of channels in groups", batch: 1, length: 19, channels: 300, states: 3, groups: 2, chunkSize: 7 },
  { name: "many states", batch: 1, length: 10, channels: 3, states: 127, groups: 1, chunkSize: 64 },
  { name: "a single token", batch: 3, length: 1, channels: 10, states: 16, groups: 1, chunkSize: 64 },
];

const inputsOf = ({ batch, length, channels, states, groups }: Size) => ({
  u: numbers([batch, length, channels], -2, 2),
  delta: numbers([batch, length, channels], -3, 2),
  A: numbers([channels, states], -3, -0.1),
  B: numbers([batch, length, groups, states]),
  C: numbers([batch, length, groups, states]),
  D: numbers([channels]),
  z: numbers([batch, length, channels], -3, 3),
  deltaBias: numbers([channels], -1, 0),
  initialState: numbers([batch, channels, states]),
});

/** Sequences of irregular lengths. */
function sequences({ batch, length }: Size): number[] {
  return Array.from({ length: batch * length }, (_, i) => Math.floor(((i % length) + (i / length) * 3) / 37));
}

/** A row that ends before its last chunk, one that is empty, and one of a token. */
function ends({ batch, length }: Size): number[] {
  return Array.from({ length: batch }, (_, b) => [Math.ceil(length / 2), 0, 1][b % 3]);
}

describeThoroughly("selectiveScan on WebGPU", (device) => {
  for (const size of sizes) {
    const { name, batch, length, chunkSize } = size;
    it(name, () =>
      expectLikeReference(device(), {
        inputs: inputsOf(size),
        compute: (tensors) => ({ ...selectiveScan(tensors, { chunkSize }) }),
        tolerance: 2e-5,
      }),
    );

    it(`${name}, packed and padded`, () =>
      expectLikeReference(device(), {
        inputs: inputsOf(size),
        constants: { seqIdx: whole([batch, length], sequences(size)), lengths: whole([batch], ends(size)) },
        compute: ({ seqIdx, lengths, ...tensors }) => ({ ...selectiveScan(tensors, { chunkSize, seqIdx, lengths }) }),
        tolerance: 2e-5,
      }));
  }

  it("without anything optional, delta as it is", () => {
    const { u, A, B, C } = inputsOf(sizes[0]);
    return expectLikeReference(device(), {
      inputs: { u, delta: numbers(u.shape, 0.05, 0.5), A, B, C },
      compute: (tensors) => ({ ...selectiveScan(tensors, { deltaSoftplus: false }) }),
      tolerance: 2e-5,
    });
  });

  it("a loss of the final state alone, and of the output alone", async () => {
    for (const output of ["y", "finalState"] as const) {
      await expectLikeReference(device(), {
        inputs: inputsOf(sizes[0]),
        compute: (tensors) => ({ [output]: selectiveScan(tensors)[output] }),
        tolerance: 2e-5,
      });
    }
  });

  it("leaves what is padding alone, whatever it holds", async () => {
    const size = { ...sizes[0], batch: 1, length: 80, chunkSize: 64 };
    const { u, delta, A, B, C } = inputsOf(size);
    const poisoned = (input: typeof u) => {
      const row = input.data.length / 80;
      return { ...input, data: Array.from(input.data, (x, i) => (i >= 70 * row ? Number.NaN : x)) };
    };
    const place = ({ shape, data }: typeof u) => device().from(Array.from(data), shape);
    const tensors = [poisoned(u), poisoned(delta), A, poisoned(B), poisoned(C)].map(place);
    using lengths = device().from([70], [1], "i32");
    const [uNan, deltaNan, AOf, BNan, CNan] = tensors;
    const given: SelectiveScanTensors = { u: uNan, delta: deltaNan, A: AOf, B: BNan, C: CNan };
    const { y, finalState } = selectiveScan(given, { lengths });
    const values = Array.from(await y.data());
    expect(values.every(Number.isFinite)).toBe(true);
    expect(values.slice(70 * 6).every((x) => x === 0)).toBe(true);
    expect(Array.from(await finalState.data()).every(Number.isFinite)).toBe(true);
    for (const tensor of [...tensors, y, finalState]) tensor.dispose();
  });

  it("gives the same bits twice", async () => {
    const size = sizes[0];
    const place = ({ shape, data }: { shape: readonly number[]; data: ArrayLike<number> }) =>
      device().from(Array.from(data), shape);
    const tensors = Object.fromEntries(Object.entries(inputsOf(size)).map(([k, v]) => [k, place(v)]));
    const runs = [];
    for (let i = 0; i < 2; i++) {
      const { y, finalState } = selectiveScan(tensors as unknown as SelectiveScanTensors);
      runs.push([...(await y.data()), ...(await finalState.data())]);
      y.dispose();
      finalState.dispose();
    }
    expect(runs[0]).toEqual(runs[1]);
    for (const tensor of Object.values(tensors)) tensor.dispose();
  });
});
