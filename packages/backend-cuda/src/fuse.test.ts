// What a token's launches become together, without a device: launches as the kernels' host sides make them.

import { contiguousStrides, type DType, type View } from "@diffmamba/tensor";
import { beforeEach, describe, expect, it } from "vitest";
import { ArgumentBuffer } from "./arguments.js";
import type { Launch } from "./context.js";
import { hopper } from "./device.testing.js";
import { Fuser } from "./fuse.js";
import { createKernels, type ProductContext } from "./kernels/index.js";
import type { CudaBuffer } from "./memory.js";

/** The type of the views that no launch was given. */
let untouched: DType | undefined;
let next: number;
let emitted: Launch[];
let fuser: Fuser;
let kernels: Required<ReturnType<typeof createKernels>>;

beforeEach(() => {
  next = 2 ** 30;
  emitted = [];
  untouched = undefined;
  fuser = new Fuser(hopper.multiprocessors, (launch) => emitted.push(launch), 2 ** 20);
  const context = {
    device: hopper,
    tf32: false,
    launch: (launch: Launch) => {
      if (fuser.take(launch)) return;
      fuser.flush();
      emitted.push(launch);
    },
    multiply: () => {
      fuser.flush();
      return true;
    },
    isUntouched: ({ dtype }: View) => dtype === untouched,
  };
  kernels = createKernels(context as unknown as ProductContext) as typeof kernels;
});

const names = (): string[] => {
  fuser.flush();
  return emitted.map(({ kernel }) => kernel);
};

function view(shape: readonly number[], dtype: DType = "bf16"): View {
  const buffer = { address: next, bytes: 0 } as CudaBuffer;
  next += Math.ceil((shape.reduce((a, b) => a * b, 4) + 4096) / 512) * 512;
  return { buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0 };
}

/** Columns of rows that are wider. */
function columns(of: View, from: number, shape: readonly number[]): View {
  const width = of.shape[of.shape.length - 1];
  const strides = [...contiguousStrides(shape)];
  strides[0] = width;
  if (shape.length > 2) strides[1] = width;
  return { ...of, shape, strides, offset: of.offset + from };
}

const product = (a: View, n: number, out = view([1, a.shape[0], n])): View => {
  const [m, k] = a.shape;
  const b = view([1, n, k]);
  const left = { ...a, shape: [1, m, k], strides: [m * k, k, 1] };
  kernels.matmul(left, { ...b, shape: [1, k, n], strides: [n * k, 1, k] }, out, { accumulate: false });
  return { ...out, shape: [m, n], strides: [n, 1] };
};

const addNorm = (x: View, y: View | undefined, rstd = view([x.shape[0]], "f32")): { sum: View; normed: View } => {
  const [rows, width] = x.shape;
  const [sum, normed] = [view([rows, width], "f32"), view([rows, width])];
  kernels.addRmsNorm({ x, y, weight: view([width]) }, { sum, normed, rstd }, { eps: 1e-5 });
  return { sum, normed };
};

const convolve = (x: View, channels: number, y = view([x.shape[0], 1, channels]), goesOn = true): View => {
  const state = view([x.shape[0], channels, 4], "f32");
  kernels.causalConv1d(
    { x, weight: view([channels, 4]), bias: view([channels]), ...(goesOn && { initialState: state }) },
    { y, finalState: state },
    { activation: "silu" },
  );
  return y;
};

/** A layer of Mamba-2 as its routines run: D 768, 24 heads of 64, N 128. */
function mamba2(batch: number, stateType: DType = "f32"): void {
  const { normed } = addNorm(view([batch, 768], "f32"), view([batch, 768]));
  const packed = product(normed, 3352);
  const mixed = convolve(columns(packed, 1536, [batch, 1, 1792]), 1792);
  const [y, state] = [view([batch, 1, 24, 64]), view([batch, 24, 64, 128], stateType)];
  const of = (from: number, shape: readonly number[]): View => {
    return { ...mixed, shape, strides: [1792, 1792, shape[3], 1], offset: mixed.offset + from };
  };
  kernels.ssdScan(
    {
      x: of(0, [batch, 1, 24, 64]),
      dt: columns(packed, 3328, [batch, 1, 24]),
      A: view([24], "f32"),
      B: of(1536, [batch, 1, 1, 128]),
      C: of(1664, [batch, 1, 1, 128]),
      initialState: state,
    },
    { y, finalState: state },
    { chunkSize: 256, dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] },
  );
  const gated = view([batch, 1536]);
  kernels.rmsNorm(
    {
      x: { ...y, shape: [batch, 1536], strides: [1536, 1] },
      weight: view([1536]),
      z: columns(packed, 0, [batch, 1536]),
    },
    { y: gated, rstd: view([batch, 1], "f32") },
    { eps: 1e-5, groupSize: 1536, normBeforeGate: false },
  );
  product(gated, 768);
}

/** A layer of Mamba: D 768, 1536 channels, N 16, rank 48. */
function mamba(batch: number, stateType: DType = "f32"): void {
  const { normed } = addNorm(view([batch, 768], "f32"), view([batch, 768]));
  const packed = product(normed, 3072);
  const u = convolve(columns(packed, 0, [batch, 1, 1536]), 1536);
  const shared = product({ ...u, shape: [batch, 1536], strides: [1536, 1] }, 80);
  const delta = product(columns(shared, 0, [batch, 48]), 1536);
  const [y, state] = [view([batch, 1, 1536]), view([batch, 1536, 16], stateType)];
  kernels.selectiveScan(
    {
      u,
      delta: { ...delta, shape: [batch, 1, 1536], strides: [1536, 1536, 1] },
      A: view([1536, 16], "f32"),
      B: { ...columns(shared, 48, [batch, 1, 1, 16]), strides: [80, 80, 16, 1] },
      C: { ...columns(shared, 64, [batch, 1, 1, 16]), strides: [80, 80, 16, 1] },
      z: columns(packed, 1536, [batch, 1, 1536]),
      initialState: state,
    },
    { y, finalState: state },
    { chunkSize: 16, deltaSoftplus: true },
  );
  product({ ...y, shape: [batch, 1536], strides: [1536, 1] }, 768);
}

describe("a token's launches", () => {
  it("are three for a layer of Mamba-2, whatever the rows", () => {
    for (const [batch, first, last] of [
      [1, "add_norm_product1x2_bf16", "norm_product1x1_bf16"],
      [2, "add_norm_product2x2_bf16", "norm_product2x1_bf16"],
      [3, "add_norm_product4x2_bf16", "norm_product4x2_bf16"],
      [8, "add_norm_product8x2_bf16", "norm_product8x2_bf16"],
    ] as const) {
      emitted = [];
      mamba2(batch);
      expect(names()).toEqual([first, "ssd_single_bf16_128", last]);
    }
  });

  it("are four for a layer of Mamba", () => {
    mamba(1);
    expect(names()).toEqual([
      "add_norm_product1x2_bf16",
      "matmul_skinny1x1_bf16",
      "product_scan_bf16_16",
      "matmul_skinny1x1_bf16",
    ]);
  });

  it("are as many where states are kept in 16 bits", () => {
    mamba2(1, "bf16");
    mamba(1, "f16");
    expect(names().filter((name) => name.includes("state"))).toEqual([
      "ssd_single_bf16_state_bf16_128",
      "product_scan_bf16_state_f16_16",
    ]);
    expect(emitted.length).toBe(7);
  });

  it("of more rows, in a layer of Mamba-2: the convolution goes with its product", () => {
    mamba2(9);
    const four = ["add_rms_norm_f32_bf16_v8", "matmul_rows1x1_bf16", "ssd_single_bf16_128", "gated_rms_norm_bf16"];
    expect(names()).toEqual([...four, "matmul_rows1x4_bf16"]);
    const buffer = new ArgumentBuffer();
    buffer.launch(0, emitted[1]);
    const view_ = new DataView(buffer.bytes.buffer, 64);
    // Product: rows, columns, k. Conv, behind 56 bytes of the product: rows, length, channels, width. Its first column; the size of all.
    expect([24, 28, 32].map((at) => view_.getInt32(at, true))).toEqual([9, 3352, 768]);
    expect([0, 4, 8, 12].map((at) => view_.getInt32(56 + 48 + at, true))).toEqual([9, 1, 1792, 4]);
    expect(view_.getInt32(160, true)).toBe(1536);
    expect(new Int32Array(buffer.bytes.buffer)[8]).toBe(280);
    emitted = [];
    mamba2(65);
    expect(names()).toEqual([four[0], "conv_step_bf16", ...four.slice(2)]);
  });

  it("of more rows, in a layer of Mamba: the short product goes with the scan whose steps it gives", () => {
    mamba(64, "bf16");
    expect(names()).toEqual([
      "add_rms_norm_f32_bf16_v8",
      "matmul_rows4x1_bf16",
      "matmul_rows4x4_bf16",
      "product_scan_rows_bf16_state_bf16",
      "matmul_rows4x4_bf16",
    ]);
    const buffer = new ArgumentBuffer();
    buffer.launch(0, emitted[3]);
    const view_ = new DataView(buffer.bytes.buffer, 64);
    // Product: rows, columns, k. Behind its 56 bytes the scan's 16 addresses and 6 pitches, and its length and channels; last the rows.
    expect([24, 28, 32].map((at) => view_.getInt32(at, true))).toEqual([64, 1536, 48]);
    expect([56 + 152, 56 + 156].map((at) => view_.getInt32(at, true))).toEqual([1, 1536]);
    expect(view_.getInt32(56 + 192, true)).toBe(64);
  });

  it("keep their order, and what is between them", () => {
    const { normed } = addNorm(view([1, 768], "f32"), undefined);
    kernels.binary("add", view([8]), view([8]), view([8]));
    product(normed, 64);
    expect(names()).toEqual(["add_rms_norm_f32_bf16_v8", "binary_bf16_v8", "matmul_skinny1x1_bf16"]);
  });

  it("are as structures lie in memory: the convolution 152 bytes after the norm", () => {
    mamba2(1);
    fuser.flush();
    const buffer = new ArgumentBuffer();
    buffer.launch(0, emitted[0]);
    const view_ = new DataView(buffer.bytes.buffer, 64);
    // Product: rows, columns, k. Conv: rows, length, channels, width. The first column of the convolution; the structure's size.
    expect([96 + 24, 96 + 28, 96 + 32].map((at) => view_.getInt32(at, true))).toEqual([1, 3352, 768]);
    expect([0, 4, 8, 12].map((at) => view_.getInt32(152 + 48 + at, true))).toEqual([1, 1, 1792, 4]);
    expect(view_.getInt32(256, true)).toBe(1536);
    expect(new Int32Array(buffer.bytes.buffer)[8]).toBe(264);
    buffer.launch(0, emitted[2]);
    expect([96 + 24, 96 + 28, 96 + 32].map((at) => view_.getInt32(at, true))).toEqual([1, 768, 1536]);
    // No convolution.
    expect(view_.getBigInt64(152, true)).toBe(0n);
  });

  it("wait where a product comes to lie over what its norm is of, or over what somebody may want", () => {
    const over = (of: View): View => ({ ...of, dtype: "bf16", shape: [1, 1, 64], strides: [64, 64, 1] });
    const [x, y] = [view([1, 768], "f32"), view([1, 768])];
    product(addNorm(x, y).normed, 64, over(x));
    product(addNorm(x, y).normed, 64, over(y));
    const sums = addNorm(x, y);
    product(sums.normed, 64, over(sums.sum));
    expect(names()).toEqual(
      Array.from({ length: 3 }, () => ["add_rms_norm_f32_bf16_v8", "matmul_skinny1x1_bf16"]).flat(),
    );
  });

  it("leave a norm's rstd out where the product comes to lie over it, and only there", () => {
    const rstd = view([1], "f32");
    const out: View = { ...rstd, dtype: "bf16", shape: [1, 1, 64], strides: [64, 64, 1] };
    product(addNorm(view([1, 768], "f32"), undefined, rstd).normed, 64, out);
    product(addNorm(view([1, 768], "f32"), undefined).normed, 64);
    fuser.flush();
    expect(emitted.map(({ args }) => (args[5] as { address: number }).address === 0)).toEqual([true, false]);
  });

  it("convolve apart where the output lies over what other blocks still read", () => {
    const x = view([1, 768], "f32");
    const packed = product(addNorm(x, undefined).normed, 3352);
    convolve(columns(packed, 1536, [1, 1, 1792]), 1792, {
      ...x,
      dtype: "bf16",
      shape: [1, 1, 1792],
      strides: [1792, 1792, 1],
    });
    expect(names()).toEqual(["add_norm_product1x2_bf16", "conv_step_bf16"]);
  });

  describe("of many rows, with a norm of residual sums between two products", () => {
    const [rows, wide] = [64, 1536];

    /** A product, the norm of the stream that it is added to, and the product of that; and the stream. */
    function between(
      dtype: DType = "bf16",
      change: (views: Record<"x" | "out" | "last", View>) => void = () => undefined,
    ) {
      const views = {
        x: view([rows, 768], "f32"),
        out: view([1, rows, 768], dtype),
        last: view([1, rows, 3072], dtype),
      };
      change(views);
      const out = product(view([rows, wide], dtype), 768, views.out);
      const [sum, normed] = [view([rows, 768], "f32"), view([rows, 768], dtype)];
      const rstd = view([rows], "f32");
      kernels.addRmsNorm({ x: views.x, y: out, weight: view([768], dtype) }, { sum, normed, rstd }, { eps: 1e-5 });
      const packed = product(normed, 3072, views.last);
      convolve(columns(packed, 0, [rows, 1, wide]), wide);
      return { ...views, sum, normed, rstd };
    }

    const address = (launch: Launch, i: number): number => (launch.args[i] as { address: number }).address;
    const of = (x: View): number => (x.buffer as CudaBuffer).address;

    it("the norm is half in each of them", () => {
      const { x, sum, normed, rstd } = between();
      expect(names()).toEqual(["matmul_rows4x4_bf16", "matmul_rows4x1_bf16"]);
      const [first, second] = emitted;
      const [norm, add] = [second.args.length - 7 - 10, first.args.length - 7];
      expect(address(first, add)).toBe(of(x));
      const [sums, scaled, squares] = [2, 3, 4].map((i) => address(first, add + i));
      expect([address(second, norm), address(second, 0), address(second, norm + 1)]).toEqual([sums, scaled, squares]);
      expect([3, 4, 5].map((i) => address(second, norm + i))).toEqual([sum, normed, rstd].map(of));
      // The first takes no half norm in, the second leaves none; and structures lie as the kernel has them.
      expect([address(first, norm), address(second, add)]).toEqual([0, 0]);
      const buffer = new ArgumentBuffer();
      buffer.launch(0, second);
      expect(new Int32Array(buffer.bytes.buffer)[8]).toBe(280);
      const view_ = new DataView(buffer.bytes.buffer, 64);
      expect([24, 28, 32, 36].map((at) => view_.getInt32(at, true))).toEqual([64, 3072, 768, 768]);
      // Parts, and pitches of sums and normed rows.
      expect([216, 220, 224].map((at) => view_.getInt32(at, true))).toEqual([24, 768, 768]);
    });

    it("weights are read before the launch before has ended where nobody was given them", () => {
      const earlyOf = (which: DType | undefined) => {
        [untouched, emitted] = [which, []];
        between();
        expect(names()).toEqual(["matmul_rows4x4_bf16", "matmul_rows4x1_bf16"]);
        // Of the product, and of the convolution in the same launch.
        return emitted.map(({ args }) => [args.length - 18, args.length - 20].map((i) => args[i]));
      };
      const flag = (value: number) => ({ kind: "i32", value });
      expect(earlyOf(undefined)).toEqual([
        [flag(0), flag(0)],
        [flag(0), flag(0)],
      ]);
      // States of the convolution are of f32.
      expect(earlyOf("bf16").map(([product]) => product)).toEqual([flag(1), flag(1)]);
    });

    it("of two norms, the one whose product a convolution follows is", () => {
      const out = product(view([rows, wide]), 768);
      const first = addNorm(view([rows, 768], "f32"), out);
      const second = addNorm(first.sum, product(first.normed, 768));
      convolve(columns(product(second.normed, 3072), 0, [rows, 1, wide]), wide);
      expect(names()).toEqual([
        "matmul_rows4x4_bf16",
        "add_rms_norm_f32_bf16_v8",
        "matmul_rows4x4_bf16",
        "matmul_rows4x1_bf16",
      ]);
    });

    it("stands alone where no token's convolution comes next, or one that begins: a step of training has the bits of its calls", () => {
      const alone = ["matmul_rows4x4_bf16", "add_rms_norm_f32_bf16_v8", "matmul_rows4x1_bf16"];
      const forward = () => product(addNorm(view([rows, 768], "f32"), product(view([rows, wide]), 768)).normed, 3072);
      forward();
      expect(names()).toEqual(alone);
      emitted = [];
      convolve(columns(forward(), 0, [rows, 1, wide]), wide, undefined, false);
      expect(names()).toEqual(alone);
    });

    it("stands alone in f16, where rows may be too large before the norm", () => {
      between("f16");
      expect(names()).toEqual(["matmul_rows4x4_f16", "add_rms_norm_f32_f16_v8", "matmul_rows4x1_f16"]);
    });

    it("stands alone where a product comes to lie over the stream, or over what the norm leaves", () => {
      const alone = ["matmul_rows4x4_bf16", "add_rms_norm_f32_bf16_v8", "matmul_rows4x1_bf16"];
      between("bf16", (views) => {
        views.out = { ...views.out, buffer: views.x.buffer };
      });
      expect(names()).toEqual(alone);
      emitted = [];
      const out = product(view([rows, wide]), 768);
      const sums = addNorm(view([rows, 768], "f32"), out);
      const last = { ...view([1, rows, 3072]), buffer: sums.sum.buffer };
      convolve(columns(product(sums.normed, 3072, last), 0, [rows, 1, wide]), wide);
      expect(names()).toEqual(alone);
    });

    it("leaves no rstd where the product comes to lie over it", () => {
      const out = product(view([rows, wide]), 768);
      const last = view([1, rows, 3072]);
      const { normed } = addNorm(view([rows, 768], "f32"), out, { ...view([rows], "f32"), buffer: last.buffer });
      convolve(columns(product(normed, 3072, last), 0, [rows, 1, wide]), wide);
      expect(names()).toEqual(["matmul_rows4x4_bf16", "matmul_rows4x1_bf16"]);
      expect(address(emitted[1], emitted[1].args.length - 7 - 10 + 5)).toBe(0);
    });
  });

  describe("of many rows that keep tokens, with the gated norm between the scan and its product", () => {
    const [rows, width, heads] = [64, 1536, 24];

    /** The scan, its norm, and the products around the next norm; what the launches are given. */
    function layer({ groupSize = width, dtype = "bf16" as DType, over = false } = {}) {
      const [packed, x] = [view([rows, 3352], dtype), view([rows, 768], "f32")];
      const [y, gated] = [view([rows, 1, heads, 64], dtype), view([rows, width], dtype)];
      const rstd = view([rows, width / groupSize], "f32");
      const state = view([rows, heads, 64, 128], dtype);
      kernels.ssdDeferred(
        {
          ...{ x: view([rows, 1, heads, 64], dtype), dt: columns(packed, 3328, [rows, 1, heads]) },
          ...{ A: view([heads], "f32"), B: view([rows, 1, 1, 128], dtype), C: view([rows, 1, 1, 128], dtype) },
          ...{ initialState: state, keptX: view([rows, 16, heads, 64], dtype), keptB: view([rows, 16, 1, 128], dtype) },
          ...{ keptSteps: view([rows, 16, heads], "f32"), count: view([], "i32") },
        },
        { y },
        { dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] },
      );
      kernels.rmsNorm(
        {
          x: { ...y, shape: [rows, width], strides: [width, 1] },
          weight: view([width], dtype),
          z: columns(packed, 0, [rows, width]),
        },
        { y: gated, rstd },
        { eps: 1e-5, groupSize, normBeforeGate: false },
      );
      const out = product(gated, 768, over ? { ...view([1, rows, 768], dtype), buffer: gated.buffer } : undefined);
      const [sum, normed] = [view([rows, 768], "f32"), view([rows, 768], dtype)];
      kernels.addRmsNorm(
        { x, y: out, weight: view([768], dtype) },
        { sum, normed, rstd: view([rows], "f32") },
        { eps: 1e-5 },
      );
      convolve(columns(product(normed, 3352), width, [rows, 1, 1792]), 1792);
      return { packed, gated, rstd };
    }

    const address = (launch: Launch, i: number): number => (launch.args.at(i) as { address: number }).address;
    const of = (x: View): number => (x.buffer as CudaBuffer).address;

    it("both norms are half in what is before them and half in their product", () => {
      const { packed, gated, rstd } = layer();
      expect(names()).toEqual(["ssd_kept_norm_bf16_128", "matmul_rows4x4_bf16", "matmul_rows4x1_bf16"]);
      const [scan, product] = emitted;
      expect(address(scan, -6)).toBe(of(packed));
      const [scaled, squares] = [address(scan, -4), address(scan, -3)];
      const norm = -7 - 10;
      expect([address(product, 0), address(product, norm + 1)]).toEqual([scaled, squares]);
      expect([address(product, norm), address(product, norm + 4), address(product, norm + 5)]).toEqual([
        0,
        of(gated),
        of(rstd),
      ]);
      // The second norm begins in other memory.
      expect(address(product, -5)).not.toBe(0);
      expect(address(product, -4)).not.toBe(scaled);
      const buffer = new ArgumentBuffer();
      buffer.launch(0, scan);
      expect(new Int32Array(buffer.bytes.buffer)[8]).toBe(14 * 8 + 18 * 4 + 40);
    });

    it("stand alone where there are several groups, in f16, and where the product comes to lie over the normed rows", () => {
      layer({ groupSize: width / 2 });
      expect(names()).toEqual([
        "ssd_kept_bf16_128",
        "gated_rms_norm_bf16",
        "matmul_rows4x4_bf16",
        "matmul_rows4x1_bf16",
      ]);
      emitted = [];
      layer({ dtype: "f16" });
      expect(names().slice(0, 3)).toEqual(["ssd_kept_f16_128", "gated_rms_norm_f16", "matmul_rows4x4_f16"]);
      emitted = [];
      layer({ over: true });
      expect(names().slice(0, 3)).toEqual(["ssd_kept_bf16_128", "gated_rms_norm_bf16", "matmul_rows4x4_bf16"]);
    });
  });
});
