// A token's scan with tokens beside the state and the norm of its y as one launch, without a device.

import { contiguousStrides, type DType, type View } from "@diffmamba/tensor";
import { beforeEach, describe, expect, it } from "vitest";
import { ArgumentBuffer } from "./arguments.js";
import type { DeviceProperties, Launch } from "./context.js";
import { Fuser } from "./fuse.js";
import { createKernels, type ProductContext } from "./kernels/index.js";
import type { CudaBuffer } from "./memory.js";

const device = { computeCapability: 90, multiprocessors: 132 } as DeviceProperties;

let next: number;
let emitted: Launch[];
let fuser: Fuser;
let kernels: Required<ReturnType<typeof createKernels>>;

beforeEach(() => {
  next = 2 ** 30;
  emitted = [];
  fuser = new Fuser(
    device.multiprocessors,
    (launch) => emitted.push(launch),
    () => 0,
  );
  const launch = (launch: Launch) => {
    if (!fuser.take(launch)) emitted.push(launch);
  };
  kernels = createKernels({ device, tf32: false, launch } as unknown as ProductContext) as typeof kernels;
});

function view(shape: readonly number[], dtype: DType = "bf16"): View {
  const buffer = { address: next, bytes: 0 } as CudaBuffer;
  next += shape.reduce((a, b) => a * b, 4) + 4096;
  next = Math.ceil(next / 512) * 512;
  return { buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0 };
}

interface Change {
  readonly headDim?: number;
  readonly groupSize?: number;
  /** The scan has the gate. */
  readonly gated?: boolean;
  /** Where the normed rows come to lie. */
  readonly over?: "x" | "y" | "keptX";
}

/** The scan of 24 rows of 1536 channels, N 128, and the norm of it; the names of what is launched. */
function names({ headDim = 64, groupSize = 1536, gated = false, over }: Change = {}): string[] {
  const [rows, heads] = [24, 1536 / headDim];
  const like = [rows, 1, heads, headDim];
  const shared = view([rows, 1, 1, 128]);
  const [x, y, z] = [view(like), view(like), view(like)];
  const keptX = view([rows, 16, heads, headDim]);
  const kept = {
    keptX,
    keptB: view([rows, 16, 1, 128]),
    keptSteps: view([rows, 16, heads], "f32"),
    count: view([], "i32"),
  };
  const initialState = view([rows, heads, headDim, 128]);
  const inputs = {
    x,
    dt: view([rows, 1, heads]),
    A: view([heads], "f32"),
    B: shared,
    C: shared,
    initialState,
    ...kept,
  };
  const options = { dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] } as const;
  kernels.ssdDeferred({ ...inputs, ...(gated && { z }) }, { y }, options);
  const flat = (of: View): View => ({ ...of, shape: [rows, 1536], strides: [1536, 1] });
  const normed = over === undefined ? view([rows, 1536]) : flat({ x, y, keptX }[over]);
  const groups = 1536 / groupSize;
  kernels.rmsNorm(
    { x: flat(y), weight: view([1536]), z: flat(z) },
    { y: normed, rstd: view([rows, groups], "f32") },
    { eps: 1e-5, groupSize, normBeforeGate: false },
  );
  fuser.flush();
  return emitted.map(({ kernel }) => kernel);
}

describe("a scan with tokens beside the state, and its norm", () => {
  it.each([{}, { groupSize: 768 }, { headDim: 32, groupSize: 192 }])("are one launch: %j", (change) => {
    expect(names(change)).toEqual(["ssd_deferred_norm_bf16_state_bf16_128"]);
    expect(emitted[0]).toMatchObject({ grid: [24, 24], block: 256, overlap: true });
    const buffer = new ArgumentBuffer();
    buffer.launch(0, emitted[0]);
    const view_ = new DataView(buffer.bytes.buffer, 64);
    // SsdDeferred has 176 bytes, y at 104; SsdNorm has x first, and rows and size behind its 5 addresses.
    expect(view_.getBigInt64(176, true)).toBe(view_.getBigInt64(104, true));
    expect([40, 44].map((at) => view_.getInt32(176 + at, true))).toEqual([24, change.groupSize ?? 1536]);
    expect(new Int32Array(buffer.bytes.buffer)[8]).toBe(176 + 80);
  });

  it.each([
    { gated: true },
    { headDim: 96 },
    { headDim: 32, groupSize: 32 },
    { over: "x" },
    { over: "y" },
    { over: "keptX" },
  ] as const)("stay two: %j", (change) => {
    const apart = names(change);
    expect(apart).toEqual(["ssd_deferred_bf16_state_bf16_128", expect.stringMatching(/rms_norm/)]);
  });
});
