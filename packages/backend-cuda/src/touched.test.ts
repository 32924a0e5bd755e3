// What a recording has named: buffers by any address in them, in arguments, tables and products.

import type { View } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { i64, longs, pointer } from "./context.js";
import { matricesOf } from "./kernels/matmul.js";
import type { CudaBuffer } from "./memory.js";
import { Touched } from "./touched.js";

const MIB = 2 ** 20;

/** (1, 4, 4) of a buffer of 1 MiB that is the `place`-th in memory. */
function view(place: number, offset = 0): View {
  const buffer = { address: 2 ** 30 + place * MIB, bytes: MIB } as CudaBuffer;
  return { buffer, dtype: "f32", shape: [1, 4, 4], strides: [16, 4, 1], offset };
}

describe("buffers that a recording has named", () => {
  it("are those that any argument points into, wherever", () => {
    const touched = new Touched();
    expect(touched.has(view(0))).toBe(false);
    touched.launch([pointer(undefined), pointer(view(1, 100)), i64(2 ** 30 + 2 * MIB)]);
    expect([0, 1, 2].map((place) => touched.has(view(place)))).toEqual([false, true, false]);
    touched.view(view(3, 7));
    expect(touched.has(view(3))).toBe(true);
  });

  it("are in tables of addresses too", () => {
    const touched = new Touched();
    touched.launch([longs([3, 2 ** 30 + MIB + 8])]);
    expect([0, 1, 2].map((place) => touched.has(view(place)))).toEqual([false, true, false]);
  });

  it("are what a product reads and writes, and its bias", () => {
    const touched = new Touched();
    const [a, b, out] = [0, 1, 2].map((place) => matricesOf("matrix", view(place)));
    touched.product({ a, b, out, m: 4, n: 4, k: 4, batch: 1, accumulate: false, bias: view(3) });
    expect([0, 1, 2, 3, 4].map((place) => touched.has(view(place)))).toEqual([true, true, true, true, false]);
  });
});
