// The gated norm's groups are apart from those of B and C.

import { Build } from "@diffmamba/nn";
import { type HostTensor, reference, type Tensor } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { Mamba2 } from "./mamba2.js";

const device = reference({ poison: true });
afterAll(() => device.dispose());
const build = () => new Build({ device, dtype: "f64", seed: 3 });

const sizes = { dModel: 8, dState: 3, headDim: 4, chunkSize: 4 };
const [inner, shared] = [16, 3];

/** Rows of a tensor, some of them twice. */
function rowsOf({ dtype, shape, data }: HostTensor, ranges: readonly (readonly [number, number])[]): HostTensor {
  const width = data.length / shape[0];
  const parts = ranges.flatMap(([start, end]) => Array.from(data.subarray(start * width, end * width)));
  return { dtype, shape: [parts.length / width, ...shape.slice(1)], data: Float64Array.from(parts) };
}

/** A mixer of two groups that both have the B and C of a mixer of one. */
async function doubled(one: Mamba2, normGroups?: number): Promise<Mamba2> {
  const two = new Mamba2({ ...sizes, nGroups: 2, ...(normGroups && { normGroups }) }, build());
  const tensors = await one.stateDict();
  const [b, c] = [inner, inner + shared].map((start) => [start, start + shared] as const);
  const z = inner;
  const shift = ([start, end]: readonly [number, number]) => [z + start, z + end] as const;
  const rows = [
    [0, z + inner],
    shift(b),
    shift(b),
    shift(c),
    shift(c),
    [z + inner + 2 * shared, z + inner + 2 * shared + 4],
  ] as const;
  const channels = [[0, inner], b, b, c, c] as const;
  for (const [name, ranges] of [
    ["in_proj.weight", rows],
    ["conv1d.weight", channels],
    ["conv1d.bias", channels],
  ] as const) {
    tensors.set(name, rowsOf(tensors.get(name) as HostTensor, ranges));
  }
  two.loadStateDict(tensors);
  return two;
}

describe("a Mamba-2 mixer of two groups that share B and C", () => {
  it("is the mixer of one group with one norm, and another with the norm by groups", async () => {
    using one = new Mamba2(sizes, build());
    using single = await doubled(one, 1);
    using grouped = await doubled(one);
    const x = device.from(
      Float64Array.from({ length: 2 * 5 * 8 }, (_, i) => Math.sin(i * i)),
      [2, 5, 8],
      "f64",
    );
    const run = async (mixer: Mamba2) => {
      using y: Tensor = mixer.forward(x);
      return Array.from(await y.data());
    };
    const [wanted, same, other] = [await run(one), await run(single), await run(grouped)];
    const distance = (a: number[]) => Math.hypot(...a.map((v, i) => v - wanted[i])) / Math.hypot(...wanted);
    expect(distance(same)).toBeLessThan(1e-12);
    expect(distance(other)).toBeGreaterThan(1e-3);
    x.dispose();
  });

  it("refuses groups of the norm that do not divide the channels", () => {
    expect(() => new Mamba2({ ...sizes, normGroups: 3 }, build())).toThrow("16 channels do not divide into 3 groups");
  });
});
