// The gated norm's groups of the fused mixer are those of its two branches.

import { Build } from "@diffmamba/nn";
import { reference } from "@diffmamba/tensor";
import { afterAll, expect, it } from "vitest";
import { DiffMamba2 } from "./diffMamba2.js";
import { DiffMamba2TwoBranch } from "./twoBranch.js";

const device = reference({ poison: true });
afterAll(() => device.dispose());

it.each([1, 2, undefined])("fused = two branches with %o groups of the norm and two of B and C", async (normGroups) => {
  const options = { dModel: 16, dState: 4, headDim: 4, nGroups: 2, ...(normGroups && { normGroups }) };
  const build = () => new Build({ device, dtype: "f64", seed: 3 });
  using fused = new DiffMamba2(options, build());
  using plain = new DiffMamba2TwoBranch(options, build());
  plain.loadStateDict(await fused.stateDict());
  using x = device.from(
    Float64Array.from({ length: 2 * 5 * 16 }, (_, i) => Math.sin(i * i)),
    [2, 5, 16],
    "f64",
  );
  using a = fused.forward(x);
  using b = plain.forward(x);
  const [actual, wanted] = [Array.from(await a.data()), Array.from(await b.data())];
  expect(Math.hypot(...actual.map((v, i) => v - wanted[i])) / Math.hypot(...wanted)).toBeLessThan(1e-12);
});
