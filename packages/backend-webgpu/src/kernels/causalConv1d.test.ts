// The causal convolution: filters and rows longer than what a thread or a workgroup takes at once, packed and padded, in fours and not.

import { causalConv1d } from "@diffmamba/tensor";
import { expect, it } from "vitest";
import { describeThoroughly } from "./device.testing.js";
import { expectLikeReference, numbers, whole } from "./routines.testing.js";

interface Size {
  readonly name: string;
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly width: number;
}

const sizes: readonly Size[] = [
  { name: "several workgroups of time and of channels", batch: 2, length: 300, channels: 132, width: 4 },
  { name: "one by one", batch: 3, length: 70, channels: 35, width: 4 },
  { name: "a wide filter", batch: 2, length: 75, channels: 8, width: 9 },
  { name: "a filter wider than half the longest run", batch: 2, length: 50, channels: 3, width: 33 },
  { name: "a single token", batch: 5, length: 1, channels: 8, width: 4 },
];

/** Sequences of irregular lengths. */
function sequences({ batch, length }: Size): number[] {
  return Array.from({ length: batch * length }, (_, i) => Math.floor(((i % length) + (i / length) * 3) / 7));
}

/** A whole row, one that is empty, one of a token, and so on. */
function ends({ batch, length }: Size): number[] {
  return Array.from({ length: batch }, (_, b) => [length - 2, 0, 1, length + 5, -1][b % 5]);
}

describeThoroughly("causalConv1d on WebGPU", (device) => {
  for (const size of sizes) {
    const { name, batch, length, channels, width } = size;
    const inputs = {
      x: numbers([batch, length, channels], -2, 2),
      weight: numbers([channels, width]),
      bias: numbers([channels]),
      initialState: numbers([batch, channels, width]),
    };
    for (const activation of ["silu", "none"] as const) {
      // Shaders for wide filters take long to compile.
      if (width > 9) continue;
      it(`${name}, activation ${activation}`, () =>
        expectLikeReference(device(), {
          inputs,
          compute: ({ x, weight, ...options }) => ({ ...causalConv1d(x, weight, { ...options, activation }) }),
        }));
    }

    it(`${name}, packed and padded`, () =>
      expectLikeReference(device(), {
        inputs,
        constants: { seqIdx: whole([batch, length], sequences(size)), lengths: whole([batch], ends(size)) },
        compute: ({ x, weight, ...options }) => ({ ...causalConv1d(x, weight, options) }),
      }));
  }

  it("takes a part of a packed row and gives its gradient into one", () =>
    expectLikeReference(device(), {
      inputs: { packed: numbers([2, 9, 20]), weight: numbers([8, 4]) },
      compute: ({ packed, weight }) => {
        const [a, b, c] = packed.split([4, 8, 8]);
        const left = causalConv1d(b, weight);
        const right = causalConv1d(c, weight);
        return { a, left: left.y, right: right.y, state: right.finalState };
      },
    }));

  it("token by token is the same as at once", async () => {
    using x = device().from(numbers([2, 7, 12]).data as Float32Array, [2, 7, 12]);
    using weight = device().from(numbers([12, 4]).data as Float32Array, [12, 4]);
    const whole = causalConv1d(x, weight);
    let state = device().zeros([2, 12, 4]);
    for (let t = 0; t < 7; t++) {
      using token = x.slice(1, t, t + 1);
      const { y, finalState } = causalConv1d(token, weight, { initialState: state });
      using expected = whole.y.slice(1, t, t + 1);
      expect(Array.from(await y.data()), `token ${t}`).toEqual(Array.from(await expected.data()));
      y.dispose();
      state.dispose();
      state = finalState;
    }
    expect(Array.from(await state.data())).toEqual(Array.from(await whole.finalState.data()));
    for (const tensor of [state, whole.y, whole.finalState]) tensor.dispose();
  });
});
