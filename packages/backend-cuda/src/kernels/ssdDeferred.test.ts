// Tokens kept beside the states, without a device: what is asked of whom, and how rows are cut into blocks.

import { contiguousStrides, type DType, type View } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import type { KernelContext, Launch } from "../context.js";
import type { CudaBuffer } from "../memory.js";
import { keepsTokens, ssdDeferredKernels } from "./ssdDeferred.js";

function view(shape: readonly number[], dtype: DType = "bf16", offset = 0): View {
  const buffer = { address: 2 ** 30, bytes: 2 ** 30 } as CudaBuffer;
  return { buffer, dtype, shape, strides: contiguousStrides(shape), offset };
}

/** What a token, and settling, launch; heads, their width, groups, N, places. */
function launches(
  [heads, headDim, groups, dState, places]: readonly number[],
  {
    stateType = "bf16",
    offset = 0,
    untouched = false,
  }: { stateType?: DType; offset?: number; untouched?: boolean } = {},
) {
  const made: Launch[] = [];
  const context = {
    device: { multiprocessors: 132 },
    launch: (launch: Launch) => made.push(launch),
    temporary: view,
    isUntouched: () => untouched,
  };
  const { ssdDeferred, ssdSettle } = ssdDeferredKernels(context as unknown as KernelContext);
  const rows = 12;
  const kept = {
    initialState: view([rows, heads, headDim, dState], stateType),
    keptX: view([rows, places, heads, headDim]),
    keptB: view([rows, places, groups, dState]),
    keptSteps: view([rows, places, heads], "f32"),
    count: view([], "i32"),
  };
  const A = view([heads], "f32");
  const x = view([rows, 1, heads, headDim]);
  const shared = view([rows, 1, groups, dState], "bf16", offset);
  const inputs = { x, dt: view([rows, 1, heads]), A, B: shared, C: shared, ...kept };
  ssdDeferred?.(inputs, { y: x }, { dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] });
  ssdSettle?.({ A, ...kept });
  return made;
}

/** Bytes of a launch's arguments: pointers of 8, numbers of 4. */
const bytesOf = ({ args }: Launch) => args.reduce((sum, { kind }) => sum + (kind === "pointer" ? 8 : 4), 0);

describe("tokens kept beside the states", () => {
  it("are asked for of many rows, and of states that the kernel takes", () => {
    const shape = { batch: 64, heads: 24, headDim: 64, groups: 1, dState: 128 };
    const bf16 = { dtype: "bf16", stateDType: "bf16" } as const;
    expect(keepsTokens(shape, bf16)).toBe(16);
    expect(keepsTokens({ ...shape, batch: 8 }, bf16)).toBe(0);
    expect(keepsTokens({ ...shape, dState: 256 }, bf16)).toBe(0);
    expect(keepsTokens({ ...shape, heads: 48, headDim: 32, groups: 2 }, bf16)).toBe(16);
    expect(keepsTokens({ ...shape, headDim: 16 }, bf16)).toBe(0);
    expect(keepsTokens({ ...shape, heads: 3 }, bf16)).toBe(0);
    expect(keepsTokens(shape, { ...bf16, stateDType: "f32" })).toBe(0);
  });

  it.each([
    [
      [24, 64, 1, 128, 16],
      [24, 256],
    ],
    [
      [48, 32, 2, 128, 16],
      [24, 256],
    ],
    [
      [6, 16, 2, 64, 5],
      [2, 192],
    ],
    [
      [2, 128, 1, 64, 2],
      [4, 256],
    ],
    [
      [3, 96, 1, 64, 2],
      [6, 192],
    ],
    [
      [3, 8, 3, 64, 1],
      [3, 32],
    ],
  ])("heads, width, groups, N, places %j: blocks and threads %j", (sizes, [blocks, threads]) => {
    const [token, settle] = launches(sizes);
    const [heads, headDim, groups, N] = sizes;
    const products = headDim % 32 === 0 && ((heads / groups) * headDim) % 128 === 0;
    expect([token, settle].map(({ kernel }) => kernel)).toEqual([
      products ? `ssd_kept_bf16_${N}` : `ssd_deferred_bf16_state_bf16_${N}`,
      `ssd_settle_bf16_state_bf16_${N}`,
    ]);
    // A warp has 32 channels where tensor cores make the products.
    expect(token).toMatchObject(
      products ? { grid: [(heads * headDim) / 128, 12], block: 128 } : { grid: [blocks, 12], block: threads },
    );
    expect(settle).toMatchObject({ grid: [blocks, 12], block: threads });
    for (const launch of [token, settle]) {
      expect(launch.overlap).toBe(true);
      // SsdDeferred of native/kernels/ssd_deferred.cuh.
      expect(bytesOf(launch)).toBe(14 * 8 + 18 * 4);
    }
  });

  it("are read before the kernel before has ended only where nobody has written them", () => {
    const early = (untouched: boolean) => launches([24, 64, 1, 128, 16], { untouched })[0].args.at(-2);
    expect(early(false)).toMatchObject({ value: 0 });
    // As many blocks as begin beside the product before them.
    expect(early(true)).toMatchObject({ value: 2 * 132 });
  });

  it("reads rows in vectors: those that lie anywhere are copied", () => {
    const names = launches([24, 64, 1, 128, 16], { stateType: "f32", offset: 1 }).map(({ kernel }) => kernel);
    expect(names.slice(0, 2).every((name) => name.startsWith("copy_"))).toBe(true);
    expect(names.slice(2)).toEqual(["ssd_deferred_bf16_128", "ssd_settle_bf16_128"]);
  });

  it("says what there is no kernel for", () => {
    expect(() => launches([24, 64, 1, 128, 17])).toThrow(
      "cuda: ssdDeferred has no kernel for 17 tokens beside states of 24 heads",
    );
    expect(() => launches([2, 12, 1, 64, 4])).toThrow("2 heads of 12, 1 groups and N 64");
  });
});
