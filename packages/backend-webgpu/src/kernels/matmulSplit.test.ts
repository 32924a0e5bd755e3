// The product of f32 on matrix units: which products it takes, what its passes make of an operand, its shader as a compiler sees it,
// and whole products, which take the units where the device that runs the tests has them.

import { contiguousStrides, type Device, type DType, type Tensor, type View } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import type { WebGpuBackend } from "../backend.js";
import type { BufferUse, Dispatch, KernelContext } from "../context.js";
import { directivesOf } from "../options.js";
import { library, shaders } from "../shaders.generated.js";
import { shaderText } from "../template.js";
import { scattered } from "./agreement.testing.js";
import { describeWithDevice } from "./device.testing.js";
import { halvesOf, pays, planSplit, splitProduct, takesSplit } from "./matmulSplit.js";
import { contextWithoutUnits } from "./matmulUnits.testing.js";

describe("the split product's plans", () => {
  it("takes the products of a training step, and leaves small, thin and shallow ones", () => {
    const size = (rows: number, depth: number, columns: number) => ({ batch: 1, rows, depth, columns });
    for (const taken of [size(8192, 768, 3352), size(768, 8192, 3352), size(2048, 768, 50288)]) {
      expect(pays(taken)).toBe(true);
    }
    for (const left of [size(128, 128, 128), size(8192, 768, 64), size(8192, 32, 8192)]) expect(pays(left)).toBe(false);
  });

  it("cuts k into whole steps that cover it", () => {
    for (const depth of [64, 904, 8192, 50288]) {
      const { splits, chunk } = planSplit({ batch: 1, rows: 768, columns: 768, depth });
      expect(chunk % 16).toBe(0);
      expect(splits * chunk).toBeGreaterThanOrEqual(depth);
      expect((splits - 1) * chunk).toBeLessThan(depth);
    }
  });
});

/** A device of Dawn's that runs nothing, but compiles as others do; or why there is none. */
async function nullDevice(): Promise<GPUDevice | string> {
  try {
    const { create } = await import("webgpu");
    const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]) as GPU;
    const adapter = await gpu.requestAdapter();
    const requiredFeatures = ["subgroups", "shader-f16", "chromium-experimental-subgroup-matrix"] as GPUFeatureName[];
    const missing = requiredFeatures.find((feature) => !adapter?.features.has(feature));
    if (adapter === null || missing !== undefined) return `Dawn's null adapter lacks ${missing ?? "everything"}`;
    // The object of create() must outlive its devices.
    return Object.assign(await adapter.requestDevice({ requiredFeatures }), { gpu });
  } catch (error) {
    return (error as Error).message;
  }
}

const compiler = await nullDevice();

/** What a product enqueues on a device that has the units. */
function dispatchesOf(rows: number, depth: number, columns: number, contiguous: "inner" | "outer"): Dispatch[] {
  const dispatches: Dispatch[] = [];
  const view = (shape: readonly number[], dtype: DType = "f32"): View => {
    return { buffer: { bytes: 0 }, dtype, shape, strides: contiguousStrides(shape), offset: 0 };
  };
  const limits = { subgroups: true, subgroupMin: 32, splitProducts: true, workgroupBytes: 49152, workgroupSize: 1024 };
  const context = {
    limits: limits as KernelContext["limits"],
    run: (dispatch: Dispatch) => dispatches.push(dispatch),
    temporary: view,
  } as unknown as KernelContext;
  const operand = (outer: number, inner: number) => ({
    ...{ view: view([1, outer, inner]), contiguous, outer, inner, batchStride: 0 },
    pitch: contiguous === "inner" ? inner : outer,
  });
  const out = view([1, rows, columns]);
  const product = { a: operand(rows, depth), b: operand(columns, depth), out, depth, accumulate: false };
  expect(takesSplit(context, product)).toBe(true);
  splitProduct(context, product, out, { splits: 1, chunk: depth });
  return dispatches;
}

describe.skipIf(typeof compiler === "string")(
  `the split product's shaders${typeof compiler === "string" ? `: ${compiler}` : ", compiled by Dawn for its null backend"}`,
  () => {
    const directives = directivesOf({
      ...{ name: "", fallback: false, subgroups: { min: 32, max: 32 }, subgroupMatrices: true },
    });
    const elementOf = (use: BufferUse): string => {
      const { view, vec } = "view" in use ? use : { view: use, vec: undefined };
      const scalar = view.dtype === "f16" ? "u32" : view.dtype;
      return vec === 4 ? `vec4<${scalar}>` : scalar;
    };

    it.each(["inner", "outer"] as const)(
      "fit their dispatches, operands contiguous along the %s axis",
      async (axis) => {
        const dispatches = dispatchesOf(512, 1024, 1024, axis);
        expect(dispatches.map(({ shader }) => (typeof shader === "string" ? shader : shader.name))).toEqual([
          ...[
            "matmul-split-largest",
            "matmul-split-halves",
            "matmul-split-largest",
            "matmul-split-halves",
            "matmul-split",
          ],
        ]);
        for (const { shader, constants = {}, buffers, writes, uniforms = {} } of dispatches) {
          const { name, text } = typeof shader === "string" ? { name: shader, text: shaders[shader] } : shader;
          const uses = Object.entries(buffers).flatMap(([key, use]) => (use ? [{ key, use }] : []));
          const bindings = uses.map(({ key, use }) => ({
            ...{ names: [key], element: elementOf(use), written: writes.includes(key) },
          }));
          const numbers = [...uses.map(({ key }) => `${key}_at`), ...Object.keys(uniforms)];
          const parts = { name, text, constants, bindings, directives };
          const code = shaderText({ ...parts, uniforms: numbers.map((n) => ({ name: n, type: "u32" })) }, library);
          const { messages } = await (compiler as GPUDevice).createShaderModule({ code }).getCompilationInfo();
          expect(messages.filter(({ type }) => type === "error").map(({ message }) => message)).toEqual([]);
        }
      },
    );
  },
);

describeWithDevice("the split product on WebGPU", (device) => {
  const backend = () => device().backend as WebGpuBackend;

  const transposed = (data: Float32Array, height: number, width: number) =>
    data.map((_, at) => data[(at % height) * width + Math.floor(at / height)]);

  /** The halves of a matrix (outer, inner), which lies in memory as it is or turned: those of each element, the blocks, and the scale. */
  async function split(data: Float32Array, outer: number, inner: number, turned = false) {
    const { context, made } = contextWithoutUnits(device());
    using x = device().from(turned ? transposed(data, outer, inner) : data, [1, outer, inner]);
    const layout = turned
      ? ({ contiguous: "outer", pitch: outer } as const)
      : { contiguous: "inner" as const, pitch: inner };
    const { blocks, exponent } = halvesOf(context, { view: x.view(), ...layout, outer, inner, batchStride: 0 });
    const tensorOf = ({ buffer }: { readonly buffer: object }) =>
      made.find((tensor) => tensor.view().buffer === buffer);
    using wide = tensorOf(blocks)?.cast("f32");
    const halves = Float64Array.from((await wide?.data()) ?? []);
    const [shift] = (await tensorOf(exponent)?.data()) ?? [];
    for (const tensor of made) tensor.dispose();
    const [, down, across] = blocks.shape;
    const scale = 2 ** (141 - shift);
    const at = (i: number, k: number) => {
      const place = 512 * ((i >> 4) * across + (k >> 4)) + 16 * (i % 16) + (k % 16);
      return { high: halves[place] / scale, low: halves[place + 256] / scale };
    };
    return { at, down, across, scale };
  }

  for (const turned of [false, true]) {
    it(`has halves whose sums are the elements${turned ? ", turned" : ""}, and zeros around them`, async () => {
      const [outer, inner] = turned ? [300, 37] : [37, 300];
      for (const large of [1, 1e30, 1e-24]) {
        const data = scattered(outer * inner).map((x, i) => x * large * 10 ** -(i % 13));
        const { at, down, across, scale } = await split(data, outer, inner, turned);
        const most = data.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
        expect(most * scale).toBeGreaterThanOrEqual(2 ** 14);
        expect(most * scale).toBeLessThan(2 ** 15);
        expect([down, across]).toEqual(turned ? [19, 3] : [3, 19]);
        // To 22 bits of each, or 38 of the largest.
        let worst = 0;
        for (let i = 0; i < 16 * down; i++) {
          for (let k = 0; k < 16 * across; k++) {
            const x = i < outer && k < inner ? data[i * inner + k] : 0;
            const { high, low } = at(i, k);
            worst = Math.max(worst, Math.abs(high + low - x) / Math.max(2 ** -22 * Math.abs(x), 2 ** -38 * most));
          }
        }
        expect(worst).toBeLessThanOrEqual(1);
      }
    });
  }

  it("scales by what is finite, and keeps what is not", async () => {
    const data = new Float32Array(64).fill(3);
    data.set([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, -0]);
    const { at, scale } = await split(data, 4, 16);
    expect(scale).toBe(2 ** 13);
    const first = [0, 1, 2, 3, 4].map((column) => at(0, column));
    expect(first.map(({ high }) => high)).toEqual([
      ...[Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, -0, 3],
    ]);
    expect(first.map(({ low }) => Math.abs(low))).toEqual([0, 0, 0, 0, 0]);
    const zeros = await split(new Float32Array(64), 4, 16);
    expect(zeros.at(0, 0)).toEqual({ high: 0, low: 0 });
  });

  it.each([
    { rows: 100, depth: 48, columns: 120 },
    { rows: 148, depth: 304, columns: 132, accumulate: true },
    { rows: 40, depth: 80, columns: 60, batch: 2, chunk: 48 },
  ])("is right with its matrices in a buffer instead of units: %o", async (sizes) => {
    const { rows, depth, columns, batch = 1, accumulate = false, chunk = sizes.depth } = sizes;
    const { context, made } = contextWithoutUnits(device());
    const splits = Math.ceil(depth / chunk);
    const [x, y] = [scattered(batch * rows * depth), scattered(batch * depth * columns)];
    using a = device().from(x, [batch, rows, depth]);
    using b = device().from(y, [batch, depth, columns]);
    using to = device().full([batch * splits, rows, columns], 3);
    const left = { view: a.view(), contiguous: "inner", outer: rows, pitch: depth, batchStride: rows * depth } as const;
    const right = { view: b.view(), contiguous: "outer", outer: columns, pitch: columns } as const;
    const product = {
      a: { ...left, inner: depth },
      b: { ...right, inner: depth, batchStride: depth * columns },
      out: { ...to.view(), shape: [batch, rows, columns] },
      ...{ depth, accumulate },
    };
    splitProduct(context, product, to.view(), { splits, chunk });
    const got = await to.data();
    let worst = 0;
    for (let slice = 0; slice < batch * splits; slice++) {
      const [n, begin] = [Math.floor(slice / splits), (slice % splits) * chunk];
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          let sum = accumulate ? 3 : 0;
          for (let k = begin; k < Math.min(depth, begin + chunk); k++) {
            sum += x[(n * rows + i) * depth + k] * y[(n * depth + k) * columns + j];
          }
          worst = Math.max(worst, Math.abs(got[(slice * rows + i) * columns + j] - sum));
        }
      }
    }
    expect(worst).toBeLessThan(2e-5);
    for (const tensor of made) tensor.dispose();
  });

  // Sizes that the units take, with rests along each axis.
  const [rows, depth, columns] = [604, 908, 500];

  /** Element (i, j) as f64 has it, and the sum of its products' magnitudes. */
  function exact(a: Float32Array, b: Float32Array, i: number, j: number) {
    let [sum, size] = [0, 0];
    for (let k = 0; k < depth; k++) {
      const product = a[i * depth + k] * b[k * columns + j];
      sum += product;
      size += Math.abs(product);
    }
    return { sum, size };
  }

  /** A matrix whose rows, or columns, are contiguous. */
  function matrix(to: Device, data: Float32Array, height: number, width: number, byRows: boolean): Tensor {
    if (byRows) return to.from(data, [height, width]);
    using turned = to.from(transposed(data, height, width), [width, height]);
    return turned.transpose();
  }

  const some = [0, 1, 63, 64, 127, 128, 300, 603];

  const ranges: Record<string, (data: Float32Array) => Float32Array> = {
    "of one range": (data) => data,
    "of one sign": (data) => data.map((x) => 1 + x / 2),
    "of many ranges": (data) => data.map((x, i) => x * 10 ** -(i % 7)),
  };
  for (const [range, change] of Object.entries(ranges)) {
    for (const [aRows, bRows] of range === "of one range"
      ? [
          [true, false],
          [true, true],
          [false, true],
        ]
      : [[false, false]]) {
      it(`multiplies numbers ${range}, a by ${aRows ? "rows" : "columns"}, b by ${bRows ? "rows" : "columns"}`, async () => {
        const [x, y] = [change(scattered(rows * depth)), change(scattered(depth * columns))];
        using a = matrix(device(), x, rows, depth, aRows);
        using b = matrix(device(), y, depth, columns, bRows);
        using product = a.matmul(b);
        const got = await product.data();
        let worst = 0;
        for (const i of some) {
          for (let j = 0; j < columns; j++) {
            const { sum, size } = exact(x, y, i, j);
            worst = Math.max(worst, Math.abs(got[i * columns + j] - sum) / size);
          }
        }
        // What f32 in the order of k is off by here at most, nearly.
        expect(worst).toBeLessThan(2e-6);
      });
    }
  }

  it("adds to what is there", async () => {
    const [x, y] = [scattered(rows * depth), scattered(depth * columns)];
    using a = device().from(x, [1, rows, depth]);
    using b = device().from(y, [1, depth, columns]);
    using out = device().full([1, rows, columns], 5);
    backend().kernels.matmul(a.view(), b.view(), out.view(), { accumulate: true });
    const got = await out.data();
    for (const i of some) expect(got[i * columns + 7]).toBeCloseTo(5 + exact(x, y, i, 7).sum, 4);
  });

  it("is not finite where the f32 product is not, and zero of zeros", async () => {
    const [x, y] = [scattered(rows * depth), scattered(depth * columns)];
    x[3 * depth + 5] = Number.POSITIVE_INFINITY;
    x[64 * depth] = Number.NaN;
    using a = device().from(x, [rows, depth]);
    using b = device().from(y, [depth, columns]);
    using product = a.matmul(b);
    const got = await product.data();
    for (const i of [2, 3, 4, 63, 64, 65]) {
      const row = got.slice(i * columns, (i + 1) * columns);
      if (i === 3 || i === 64) expect(row.some(Number.isFinite)).toBe(false);
      else for (const j of [0, 99]) expect(row[j]).toBeCloseTo(exact(x, y, i, j).sum, 4);
    }
    using zero = device().zeros([rows, depth]);
    using nothing = zero.matmul(b);
    expect((await nothing.data()).every((value) => value === 0)).toBe(true);
  });
});
