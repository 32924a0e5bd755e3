// How the scans are cut, without a device: tiles, blocks, and the shared memory that native/tests/ssd_test.cu prints.

import { contiguousStrides, type DType, type View } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import type { CudaBuffer } from "../memory.js";
import { scanPlan } from "./selectiveScan.js";
import { backwardShared, forwardShared, ssdPlan } from "./ssdPlan.js";

function view(shape: readonly number[], dtype: DType): View {
  const buffer = { address: 2 ** 30, bytes: 2 ** 30 } as CudaBuffer;
  return { buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0 };
}

const H100 = { sharedPerBlock: 232448 };
const SMALL = { sharedPerBlock: 101376 };

function plan(
  heads: number,
  headDim: number,
  groups: number,
  dState: number,
  dtype: DType,
  device = H100,
  chunkSize = 256,
) {
  const x = view([8, 2048, heads, headDim], dtype);
  return ssdPlan({ x, B: view([8, 2048, groups, dState], dtype) }, { chunkSize }, device);
}

describe("ssdPlan", () => {
  it("gives a head of 64 a block, two heads of 32 of a group one, and a head of 128 two", () => {
    expect(plan(24, 64, 1, 128, "bf16")).toMatchObject({
      tile: 64,
      padded: 128,
      blocks: 24,
      headsPerBlock: 1,
      tiles: 32,
      tilesPerChunk: 4,
    });
    expect(plan(48, 32, 2, 128, "bf16")).toMatchObject({ blocks: 24, headsPerBlock: 2, blocksPerHead: 1 });
    expect(plan(6, 32, 6, 128, "bf16")).toMatchObject({ blocks: 6, headsPerBlock: 1 });
    expect(plan(12, 128, 1, 64, "f16")).toMatchObject({ padded: 64, blocks: 24, blocksPerHead: 2 });
  });

  it("takes smaller tiles for f32 and where shared memory is short, and says where nothing fits", () => {
    expect(plan(24, 64, 1, 128, "f32")).toMatchObject({ tile: 32, padded: 128, blocks: 48, blocksPerHead: 2 });
    expect(plan(24, 64, 1, 128, "bf16", SMALL)).toMatchObject({ tile: 32, padded: 128 });
    expect(plan(24, 64, 1, 64, "bf16", SMALL)).toMatchObject({ tile: 64, padded: 64 });
    expect(() => plan(24, 64, 1, 256, "f32", SMALL)).toThrow(/ssdScan: f32 with 256 states.*101376 bytes/);
    expect(() => plan(24, 64, 1, 300, "bf16")).toThrow(/300 states a group; there are kernels for up to 256/);
  });

  it("knows the sizes of the kernels' shared memory", () => {
    expect([forwardShared(2, 128, 64), backwardShared(2, 128, 64, 1), backwardShared(2, 128, 64, 2)]).toEqual([
      103168, 112160, 115232,
    ]);
    expect([forwardShared(4, 128, 32), backwardShared(4, 128, 32, 1)]).toEqual([86656, 92176]);
  });
});

describe("scanPlan", () => {
  it("fills states up and cuts channels of a group into blocks of 32", () => {
    const of = (channels: number, groups: number, dState: number, chunkSize: number) =>
      scanPlan(
        {
          u: view([2, 100, channels], "bf16"),
          A: view([channels, dState], "f32"),
          B: view([2, 100, groups, dState], "bf16"),
        },
        chunkSize,
      );
    expect(of(1536, 1, 16, 64)).toMatchObject({ padded: 16, back: 16, perChunk: 4, chunks: 2, tiles: 8, blocks: 48 });
    expect(of(96, 2, 20, 7)).toMatchObject({ padded: 64, back: 4, perChunk: 2, chunks: 15, blocks: 4 });
    expect(of(1536, 1, 16, 64)).toMatchObject({ forwardShared: 17408, backwardShared: 70144 });
    expect(of(1536, 1, 64, 64)).toMatchObject({ forwardShared: 29696, backwardShared: 51520 });
    expect(() => of(32, 1, 257, 64)).toThrow(/257 states a channel; there are kernels for up to 256/);
  });
});
