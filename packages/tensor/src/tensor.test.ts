import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  concat,
  currentDevice,
  type Device,
  dropout,
  grad,
  keep,
  type Leak,
  linear,
  logSumExp,
  noGrad,
  reference,
  rmsNorm,
  scope,
  setCurrentDevice,
  shapesOnly,
  softmax,
  softmaxCrossEntropy,
  ssdScan,
  type Tensor,
  tensor,
  valueAndGrad,
} from "./index.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
  setCurrentDevice(device);
});
afterEach(() => device.dispose());

const list = async (x: Tensor) => [...(await x.data())];

describe("making and reading", () => {
  it("reads nested arrays back in row-major order, through views", async () => {
    const x = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(x.shape).toEqual([2, 3]);
    expect(await list(x.transpose())).toEqual([1, 4, 2, 5, 3, 6]);
    expect(await list(x.slice(1, 1, 3))).toEqual([2, 3, 5, 6]);
    expect(await list(x.slice(1, 1, 3).reshape(4))).toEqual([2, 3, 5, 6]);
    expect(await list(x.transpose().reshape(-1))).toEqual([1, 4, 2, 5, 3, 6]);
    expect(await list(x.reshape(3, 2).permute(1, 0))).toEqual([1, 3, 5, 2, 4, 6]);
  });

  it("rounds bf16 and f16 to nearest even", async () => {
    const values = [1, 1.00390625, 1.01171875, -3.25, 65504, 1e-7, Number.POSITIVE_INFINITY];
    const bf16 = await list(device.from(Float32Array.from(values), [7], "bf16"));
    expect(bf16.slice(0, 3)).toEqual([1, 1, 1.015625]);
    const f16 = await list(device.from(Float32Array.from(values), [7], "f16"));
    expect(f16[0]).toBe(1);
    expect(f16[4]).toBe(65504);
    expect(f16[5]).toBeCloseTo(1.19e-7, 8);
    expect(f16[6]).toBe(Number.POSITIVE_INFINITY);
    expect(await list(tensor([1.5, 2.5], { dtype: "bf16" }).add(tensor([1, 1], { dtype: "bf16" })))).toEqual([
      2.5, 3.5,
    ]);
  });

  it("refuses ragged arrays, unknown types and wrong counts by name", () => {
    expect(() => tensor([[1, 2], [3]])).toThrow(/array of 1 stands beside one of 2/);
    expect(() => device.from([1, 2, 3], [2, 2])).toThrow("3 elements were given for (2, 2)");
    expect(() => device.tensor([1.5], "i32")).toThrow("element 0, 1.5, is no i32");
    expect(() => device.empty([-1])).toThrow("no shape");
    expect(() => device.empty([2 ** 50, 2 ** 20])).toThrow("too many elements");
  });

  it("says how much memory could not be had", () => {
    expect(() => device.empty([2 ** 40])).toThrow(/a tensor of \(1099511627776,\) f32: out of memory/);
  });
});

describe("arithmetic", () => {
  it("broadcasts like NumPy and refuses what does not", async () => {
    const a = tensor([[1], [2]]);
    expect(await list(a.add(tensor([10, 20, 30])))).toEqual([11, 21, 31, 12, 22, 32]);
    expect(await list(a.mul(3).sub(1))).toEqual([2, 5]);
    expect(() =>
      a.add(
        tensor([
          [1, 2, 3],
          [1, 2, 3],
          [1, 2, 3],
        ]),
      ),
    ).toThrow("(2, 1) and (3, 3) do not broadcast");
    expect(() => a.add(tensor([1], { dtype: "i32" }))).toThrow("the element types differ, f32 and i32");
  });

  it("multiplies matrices in every layout", async () => {
    const a = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const b = tensor([
      [1, 0],
      [0, 1],
      [1, 1],
    ]);
    const product = [4, 5, 10, 11];
    expect(await list(a.matmul(b))).toEqual(product);
    const bT = b.transpose().contiguous();
    expect(await list(a.matmul(bT.transpose()))).toEqual(product);
    expect(await list(linear(a, bT))).toEqual(product);
    const aT = a.transpose().contiguous();
    expect(await list(aT.transpose().matmul(b))).toEqual(product);
    const batch = concat([a.reshape(1, 2, 3), a.mul(2).reshape(1, 2, 3)], 0);
    expect(await list(batch.matmul(b))).toEqual([...product, ...product.map((v) => 2 * v)]);
    expect(await list(batch.matmul(b.reshape(1, 3, 2)))).toEqual([...product, ...product.map((v) => 2 * v)]);
    expect(() => a.matmul(bT)).toThrow(
      "matmul: inner sizes differ: (2, 3) x (2, 3); the first has 3 columns, the second 2 rows. Transpose the second?",
    );
  });

  it("reduces over any axes", async () => {
    const x = device.arange(24).cast("f32").reshape(2, 3, 4);
    expect(await x.sum().item()).toBe(276);
    expect(await list(x.sum([0, 2]))).toEqual([60, 92, 124]);
    expect(await list(x.mean(1).slice(0, 0, 1))).toEqual([4, 5, 6, 7]);
    expect(await list(x.permute(2, 1, 0).max(0))).toEqual([3, 15, 7, 19, 11, 23]);
    expect(await list(x.mul(-1).argmax())).toEqual([0, 0, 0, 0, 0, 0]);
    expect(await list(tensor([1, 2, 3]).cumsum())).toEqual([1, 3, 6]);
    expect(await list(tensor([1, 2, 3]).cumsum(0, true))).toEqual([6, 5, 3]);
    expect(await tensor([1, Number.NaN, 3]).max().item()).toBeNaN();
  });

  it("looks up rows and names an index out of range", async () => {
    const table = tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(await list(table.gather(tensor([2, 0], { dtype: "i32" })))).toEqual([5, 6, 1, 2]);
    expect(() => table.gather(tensor([3], { dtype: "i32" }))).toThrow(
      "index 3 at position 0 is outside the table's 3 rows",
    );
    expect(() => table.gather(tensor([1]))).toThrow("the index is f32; it must be i32");
  });

  it("has a stable softmax, log-sum-exp and cross-entropy with ignored targets", async () => {
    const x = tensor([
      [1000, 1000],
      [0, Math.log(3)],
    ]);
    expect((await list(softmax(x))).map((v) => +v.toFixed(6))).toEqual([0.5, 0.5, 0.25, 0.75]);
    expect((await list(logSumExp(x)))[0]).toBeCloseTo(1000 + Math.log(2), 3);
    const targets = tensor([1, -100], { dtype: "i32" });
    expect(await softmaxCrossEntropy(x, targets).item()).toBeCloseTo(Math.log(2), 6);
    const none = tensor([-100, -100], { dtype: "i32" });
    expect(await softmaxCrossEntropy(x, none).item()).toBe(0);
    expect(() => softmaxCrossEntropy(x, tensor([2, 0], { dtype: "i32" }))).toThrow(/target.*2/);
  });
});

describe("gradients", () => {
  it("differentiates the README's example", async () => {
    const w = device.tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const [value, dw] = grad((w: Tensor) =>
      w
        .matmul(tensor([[1], [2], [3]]))
        .square()
        .mean(),
    )(w);
    expect(await value.item()).toBe((14 * 14 + 32 * 32) / 2);
    expect(await list(dw)).toEqual([14, 28, 42, 32, 64, 96]);
  });

  it("packs the parts of a split into one gradient, written in place by routines", async () => {
    const x = device.from(
      Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)),
      [2, 6],
    );
    const weight = tensor([1, 1]);
    const [, dx] = grad((x: Tensor) => {
      const [a, b, c] = x.split([2, 2, 2]);
      return rmsNorm(a, weight, { gate: c })
        .mul(tensor([1, 2]))
        .sum()
        .add(b.mul(3).sum());
    })(x);
    const [, da, db, dc] = grad((a: Tensor, b: Tensor, c: Tensor) =>
      rmsNorm(a, weight, { gate: c })
        .mul(tensor([1, 2]))
        .sum()
        .add(b.mul(3).sum()),
    )(x.slice(1, 0, 2), x.slice(1, 2, 4), x.slice(1, 4, 6));
    expect(await list(dx)).toEqual(await list(concat([da, db, dc], 1)));
  });

  it("adds up what a part used twice receives, and zeroes a part never used", async () => {
    const x = tensor([[1, 2, 3, 4]]);
    const weight = tensor([1, 1]);
    const [, dx] = grad((x: Tensor) => {
      const [a] = x.split([2, 2]);
      return rmsNorm(a, weight).sum().add(a.square().sum()).add(a.sum());
    })(x);
    const [, da] = grad((a: Tensor) => rmsNorm(a, weight).sum())(tensor([[1, 2]]));
    const base = await list(da);
    expect(await list(dx)).toEqual([Math.fround(base[0] + 3), Math.fround(base[1] + 5), 0, 0]);
  });

  it("accumulates into earlier gradients, keeps constants out of the tape, and refuses second order", async () => {
    const w = tensor([1, 2]);
    const first = valueAndGrad(() => w.square().sum(), [w]).gradients;
    const { gradients } = valueAndGrad(() => w.mul(noGrad(() => w.mul(10))).sum(), [w], { into: first });
    expect(await list(gradients[0])).toEqual([12, 24]);
    expect(() => grad((x: Tensor) => grad((y: Tensor) => y.sum())(x)[0])(w)).toThrow("no second-order gradients");
    expect(() => grad((x: Tensor) => x.mul(2))(w)).toThrow("a gradient needs a single number");
  });

  it("fails when a saved value was changed in place", () => {
    const w = tensor([1, 2]);
    expect(() =>
      grad((x: Tensor) => {
        const y = x.square();
        x.fillInPlace(3);
        return y.sum();
      })(w),
    ).toThrow("square: a value that its gradient needs, (2,), was changed in place");
  });

  it("has the same dropout mask for the same seed and step, and another for another", async () => {
    const x = device.ones([1000]);
    const step = device.tensor(1, "i32");
    const a = await list(dropout(x, 0.25, { seed: 1, stream: "s", step }));
    expect(await list(dropout(x, 0.25, { seed: 1, stream: "s", step }))).toEqual(a);
    step.fillInPlace(2);
    expect(await list(dropout(x, 0.25, { seed: 1, stream: "s", step }))).not.toEqual(a);
    const kept = a.filter((v) => v !== 0);
    expect(new Set(kept)).toEqual(new Set([Math.fround(1 / 0.75)]));
    expect(Math.abs(kept.length - 750)).toBeLessThan(60);
  });
});

describe("lifetimes", () => {
  it("frees a scope's tensors but those it returns, and a step nets zero", () => {
    const w = tensor([1, 2, 3]);
    const before = device.memory();
    const kept = scope(() => {
      const a = w.mul(2);
      const b = a.add(1);
      return { out: [b.square()] };
    });
    expect(device.memory().tensors).toBe(before.tensors + 1);
    kept.out[0].dispose();
    for (let i = 0; i < 3; i++) {
      scope(() => {
        valueAndGrad(() => w.square().mul(w).sum(), [w]);
      });
    }
    expect(device.memory()).toEqual({ ...before, peakBytes: expect.any(Number) });
  });

  it("frees everything when a function throws half-way", () => {
    const w = tensor([1, 2, 3]);
    const before = device.memory();
    expect(() =>
      grad((x: Tensor) => {
        x.square().exp();
        throw new Error("half-way");
      })(w),
    ).toThrow("half-way");
    expect(device.memory().tensors).toBe(before.tensors);
  });

  it("says what happened to a tensor that was freed", async () => {
    let leaked: Tensor | undefined;
    scope(() => {
      leaked = tensor([1]).mul(2);
    });
    expect(() => leaked?.add(1)).toThrow("was disposed; a scope that ended");
    expect(() => scope(() => Promise.resolve())).toThrow("the function returned a promise");
    const outside = scope(() => {
      keep(tensor([7]));
      return tensor([8]);
    });
    expect(await outside.item()).toBe(8);
  });

  it("names a disposed device, and a missing one", async () => {
    const other = reference();
    await other.dispose();
    expect(() => other.zeros([1])).toThrow("reference: the device was disposed");
    await device.dispose();
    expect(() => currentDevice()).toThrow("there is no device yet");
    device = reference();
  });

  it("tells of a tensor that was lost, and of none that was disposed of", async () => {
    setFlagsFromString("--expose_gc");
    const collect = runInNewContext("gc") as () => void;
    const leaks: Leak[] = [];
    const watched = reference({ onLeak: (leak) => leaks.push(leak) });
    (() => {
      watched.zeros([3, 5]);
      watched.zeros([7]).dispose();
    })();
    for (let i = 0; i < 50 && leaks.length === 0; i++) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(leaks).toMatchObject([{ shape: [3, 5], bytes: 60 }]);
    expect(leaks[0].madeAt).toContain("tensor.test.ts");
    await watched.dispose();
  });

  it("takes over memory where nobody shares it, and copies where somebody does", async () => {
    const [target, source, shared] = [tensor([1, 2]), tensor([3, 4]), tensor([5, 6])];
    const [before, after] = [target.storage.buffer, source.storage.buffer];
    target.take(source);
    expect(target.storage.buffer).toBe(after);
    expect(source.storage.buffer).toBe(before);
    expect(await list(target)).toEqual([3, 4]);
    const other = shared.reshape(2, 1);
    target.take(shared);
    expect(target.storage.buffer).toBe(after);
    expect(await list(target)).toEqual([5, 6]);
    shared.fillInPlace(7);
    expect(await list(target)).toEqual([5, 6]);
    target.take(tensor([8]));
    expect(await list(target)).toEqual([8, 8]);
    expect(() => target.take(target.alias())).toThrow("source and target share memory");
    for (const x of [target, source, shared, other]) x.dispose();
  });

  it("refuses a gradient whose saved value was taken from under it", () => {
    const w = tensor([1, 2]);
    expect(() =>
      grad((x: Tensor) => {
        const y = x.square();
        x.take(tensor([3, 4]));
        return y.sum();
      })(w),
    ).toThrow("square: a value that its gradient needs, (2,), was changed in place");
  });

  it("does not make the states of a scan that no gradient will ask for", () => {
    const scan = (x: Tensor) => {
      const ones = (...shape: number[]) => device.ones(shape);
      const inputs = { x, dt: ones(1, 64, 2), A: ones(2).neg(), B: ones(1, 64, 1, 8), C: ones(1, 64, 1, 8) };
      return ssdScan(inputs, { chunkSize: 1 }).y.sum();
    };
    const allocated = (run: () => void) => {
      const allocate = vi.spyOn(device.backend, "allocate");
      run();
      const sizes = allocate.mock.calls.map(([bytes]) => bytes);
      allocate.mockRestore();
      return sizes;
    };
    const states = 64 * 2 * 4 * 8 * 4;
    const x = device.ones([1, 64, 2, 4]);
    expect(allocated(() => scope(() => void scan(x)))).not.toContain(states);
    expect(allocated(() => scope(() => void grad(scan)(x)))).toContain(states);
  });

  it("counts shapes without holding data", async () => {
    const shapes = shapesOnly();
    const x = shapes.zeros([1000, 1000]);
    using y = x.matmul(x);
    expect(y.shape).toEqual([1000, 1000]);
    expect(shapes.memory().bytes).toBe(8_000_000);
    await expect(y.data()).rejects.toThrow("hold no data");
  });
});
