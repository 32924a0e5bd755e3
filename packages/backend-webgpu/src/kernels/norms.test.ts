// RMSNorm and LayerNorm: rows that no thread can hold, rows that cannot be read in fours, many rows, and NaN.

import { layerNorm, rmsNorm } from "@diffmamba/tensor";
import { expect, it } from "vitest";
import { describeThoroughly } from "./device.testing.js";
import { expectLikeReference, numbers } from "./routines.testing.js";

/** Rows x width, by what is particular about them. */
const sizes = [
  ["wider than a team holds, in fours", 3, 8 * 1152],
  ["wider than a team holds, one by one", 3, 8 * 625 + 5],
  ["a single element", 5, 1],
  ["rows of more workgroups than one", 700, 12],
] as const;

describeThoroughly("norms on WebGPU", (device) => {
  for (const [name, rows, width] of sizes) {
    for (const normBeforeGate of [undefined, false, true]) {
      const gate = normBeforeGate === undefined ? "no gate" : `gate ${normBeforeGate ? "after" : "before"} the norm`;
      it(`rmsNorm: ${name}, ${gate}`, () =>
        expectLikeReference(device(), {
          inputs: {
            x: numbers([rows, width], -1, 2),
            z: numbers([rows, width], -3, 3),
            weight: numbers([width], 0.5, 1.5),
          },
          compute: ({ x, z, weight }) => ({
            y: rmsNorm(x, weight, { eps: 0.5, ...(normBeforeGate !== undefined && { gate: z, normBeforeGate }) }),
          }),
        }));
    }

    it(`layerNorm: ${name}`, () =>
      expectLikeReference(device(), {
        inputs: { x: numbers([rows, width], -1, 2), weight: numbers([width], 0.5, 1.5), bias: numbers([width]) },
        compute: ({ x, weight, bias }) => ({ y: layerNorm(x, weight, { bias, eps: 1e-3 }) }),
      }));
  }

  it("rmsNorm: groups of 3, of which none begins at a multiple of four but the first", () =>
    expectLikeReference(device(), {
      inputs: { x: numbers([5, 12]), z: numbers([5, 12]), weight: numbers([12]) },
      compute: ({ x, z, weight }) => ({ y: rmsNorm(x, weight, { gate: z, groupSize: 3 }) }),
    }));

  it("rmsNorm: x and gate are parts of one tensor, and so are their gradients, in fours and not", () =>
    expectLikeReference(device(), {
      inputs: { packed: numbers([9, 20]), odd: numbers([9, 19]), weight: numbers([8]) },
      compute: ({ packed, odd, weight }) => {
        const [x, rest, z] = packed.split([8, 4, 8]);
        const [u, other, v] = odd.split([8, 3, 8]);
        return {
          y: rmsNorm(x, weight, { gate: z }),
          rest,
          w: rmsNorm(u, weight, { gate: v, normBeforeGate: true }),
          other,
        };
      },
    }));

  it("a NaN spoils its own row alone", async () => {
    const x = numbers([4, 24], -1, 2);
    const data = Array.from(x.data);
    data[30] = Number.NaN;
    const gate = numbers([4, 24], -3, 3);
    const gates = Array.from(gate.data);
    gates[70] = Number.NaN;
    await expectLikeReference(device(), {
      inputs: { x: { ...x, data }, z: { ...gate, data: gates }, weight: numbers([24]) },
      compute: ({ x, z, weight }) => ({
        plain: rmsNorm(x, weight),
        before: rmsNorm(x, weight, { gate: z }),
        after: rmsNorm(x, weight, { gate: z, normBeforeGate: true }),
        layer: layerNorm(x, weight),
      }),
    });
  });

  it("gives the same numbers wherever a row begins", async () => {
    using packed = device().from(numbers([6, 44]).data as Float32Array, [6, 44]);
    using weight = device().ones([40]);
    using shifted = packed.slice(1, 3, 40 + 3);
    using copy = shifted.clone();
    using a = rmsNorm(shifted, weight);
    using b = rmsNorm(copy, weight);
    const [one, other] = [await a.data(), await b.data()];
    for (let i = 0; i < one.length; i++) expect(Math.abs(one[i] - other[i])).toBeLessThan(1e-6);
  });
});
