// Products of 9 to 64 rows in 16 bits on the GPU, against sums in f64 of the same numbers: every cut into rows and k, k that fills no
// piece, rows that lie apart, and sums that are added to. Skipped by name where there is no GPU.

import { type Device, noGrad, scope, type Tensor } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cuda, cudaAvailability } from "../index.js";

const availability = cudaAvailability();

/** Numbers from -1 to 1 without a pattern. */
const noise = (size: number, seed: number) =>
  Float32Array.from({ length: size }, (_, i) => Math.sin(i * 12.9898 + seed) * Math.cos(i * 78.233 - seed));

const sizes = [
  [9, 768, 3352],
  [16, 1536, 80],
  [17, 48, 1536],
  [32, 768, 2048],
  [33, 1536, 768],
  [64, 768, 3352],
  [64, 1536, 768],
  [64, 1024, 4384],
  // Of a cluster's four blocks one has nothing of k.
  [64, 520, 96],
  [20, 2048, 1024],
  [64, 8, 2056],
  [10, 64, 40],
  [33, 72, 56],
  [50, 328, 24],
] as const;

describe.skipIf(!availability.available)("products of some rows", () => {
  let device: Device;
  beforeAll(async () => {
    device = await cuda();
  });
  afterAll(() => device?.dispose());

  const half = (values: Float32Array, shape: readonly number[], dtype: "bf16" | "f16"): Tensor =>
    noGrad(() => scope(() => device.from(values, shape).cast(dtype)));

  for (const dtype of ["bf16", "f16"] as const) {
    for (const [m, k, n] of sizes) {
      it(`are right in ${dtype}: ${m} x ${k} x ${n}`, async () => {
        // Of rows that are eight elements longer.
        const wide = half(noise(m * (k + 8), 1), [m, k + 8], dtype);
        const weight = half(noise(n * k, 2), [n, k], dtype);
        const [x, w] = [await wide.data(), await weight.data()];
        const left = wide.slice(1, 8, k + 8);
        const before = device.from(noise(m * n, 3), [1, m, n]);
        const [b] = [await before.data()];
        const out = device.zeros([1, m, n], "f32");
        const rounded = device.zeros([1, m, n], dtype);
        const [a, bT] = [left.reshape(1, m, k).view(), weight.reshape(1, n, k).permute(0, 2, 1).view()];
        const { matmul } = device.backend.kernels;
        matmul(a, bT, out.view(), { accumulate: false });
        matmul(a, bT, rounded.view(), { accumulate: false });
        matmul(a, bT, before.view(), { accumulate: true });
        const [plain, short, added] = [await out.data(), await rounded.data(), await before.data()];
        let [worst, worstShort, worstAdded] = [0, 0, 0];
        for (let i = 0; i < m; i++) {
          for (let j = 0; j < n; j++) {
            let [sum, size] = [0, 0];
            for (let e = 0; e < k; e++) {
              const term = x[i * (k + 8) + 8 + e] * w[j * k + e];
              sum += term;
              size += Math.abs(term);
            }
            const at = i * n + j;
            worst = Math.max(worst, Math.abs(plain[at] - sum) / size);
            worstShort = Math.max(worstShort, Math.abs(short[at] - sum) / size);
            worstAdded = Math.max(worstAdded, Math.abs(added[at] - b[at] - sum) / (size + Math.abs(b[at])));
          }
        }
        // Tensor cores cut off the sum of each 16 products, by up to 2^-23 of it. Products of bf16 have fewer bits that are lost.
        const most = dtype === "f16" ? 3e-6 : 2e-6;
        expect(worst).toBeLessThan(most);
        expect(worstAdded).toBeLessThan(most);
        expect(worstShort).toBeLessThan(dtype === "bf16" ? 2 ** -8 : 2 ** -11);
        for (const tensor of [wide, weight, before, out, rounded]) tensor.dispose();
      });
    }
  }
});
