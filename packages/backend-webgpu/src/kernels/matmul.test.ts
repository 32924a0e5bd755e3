// The matrix product: every tile variant gives the same bits, few rows or columns of every type, and parts along k.

import { relativeError } from "@diffmamba/conformance";
import { contiguousStrides, type Device, type DType, reference, type Tensor } from "@diffmamba/tensor";
import { expect, it } from "vitest";
import type { WebGpuBackend } from "../backend.js";
import { scattered } from "./agreement.testing.js";
import { describeWithDevice } from "./device.testing.js";
import { matmulTuning } from "./matmul.js";

type Product = (device: Device) => Tensor;

async function valuesOf(device: Device, compute: Product): Promise<Float64Array> {
  using result = compute(device);
  using wide = result.cast("f32");
  return Float64Array.from(await wide.data());
}

/** (rows, depth) x (depth, columns), the second factor as it is or transposed in memory. */
function product(rows: number, depth: number, columns: number, dtype: DType, transposed: boolean): Product {
  return (device) => {
    using a = device.from(scattered(rows * depth), [rows, depth], dtype);
    using b = device.from(scattered(depth * columns), transposed ? [columns, depth] : [depth, columns], dtype);
    if (!transposed) return a.matmul(b);
    using seen = b.transpose();
    return a.matmul(seen);
  };
}

describeWithDevice("matmul on WebGPU", (device) => {
  const tuning = () => matmulTuning((device().backend as WebGpuBackend).context);

  for (const dtype of ["f32", "bf16", "f16"] as const) {
    for (const rows of [5, 8]) {
      it(`${rows} rows by many columns of a short depth, ${dtype}`, async () => {
        const compute = product(rows, 64, 515, dtype, true);
        const error = relativeError(await valuesOf(device(), compute), await valuesOf(reference(), compute));
        expect(error).toBeLessThan(dtype === "f32" ? 1e-5 : 1e-3);
      });
    }
  }

  it("a deep product of few columns is summed in parts", async () => {
    const compute = product(3, 5000, 7, "f32", true);
    expect(relativeError(await valuesOf(device(), compute), await valuesOf(reference(), compute))).toBeLessThan(1e-5);
  });

  // On a device that has matrix units for it they take these.
  for (const [rows, depth, columns] of [
    [144, 32, 160],
    [80, 48, 152],
  ]) {
    for (const transposed of [false, true]) {
      it(`whole matrices of f16, ${rows} x ${depth} x ${columns}${transposed ? ", transposed" : ""}`, async () => {
        const compute = product(rows, depth, columns, "f16", transposed);
        expect(relativeError(await valuesOf(device(), compute), await valuesOf(reference(), compute))).toBeLessThan(
          1e-3,
        );
      });
    }
  }

  it("two variants of the tile give the same bits, in parts and with rests", async () => {
    const [a, b] = [tuning().variants.find(({ name }) => name === "32x32x16"), tuning().variants[0]];
    const results: Float64Array[] = [];
    for (const variant of [a, b]) {
      tuning().forced = variant;
      results.push(await valuesOf(device(), product(45, 300, 50, "f32", false)));
    }
    tuning().forced = undefined;
    expect(a).not.toBe(b);
    expect(results[0].every(Number.isFinite)).toBe(true);
    expect(results[1]).toEqual(results[0]);
  });

  it("adds to a part of a larger matrix", async () => {
    using out = device().ones([20, 40]);
    using part = out.slice(1, 8, 24);
    using x = device().from(scattered(20 * 12), [20, 12]);
    using w = device().from(scattered(12 * 16), [12, 16]);
    const batch = (tensor: Tensor) => {
      const view = tensor.view();
      return { ...view, shape: [1, ...view.shape], strides: [0, ...view.strides] };
    };
    device().backend.kernels.matmul(batch(x), batch(w), batch(part), { accumulate: true });
    using expected = x.matmul(w);
    using wanted = expected.add(1);
    const [got, sums] = [await out.data(), await wanted.data()];
    const [row] = contiguousStrides([20, 40]);
    for (let i = 0; i < 20; i++) {
      for (let j = 0; j < 40; j++) {
        const inside = j >= 8 && j < 24;
        expect(got[i * row + j]).toBeCloseTo(inside ? sums[i * 16 + j - 8] : 1, 5);
      }
    }
  });
});
