import { type Device, reference, type Tensor } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AdamW, decayGroups } from "./adamw.js";
import { Build } from "./build.js";
import { normal } from "./init.js";
import { FeedForward } from "./layers.js";
import { trainStep } from "./trainStep.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

/** A small network, its optimizer, and four rows of inputs and targets. */
function setUp(dtype: "f32" | "f64" = "f32", compute: "bf16" | undefined = undefined) {
  const build = new Build({ device, dtype, ...(compute && { compute }), seed: 1 });
  const model = new FeedForward({ dModel: 3, dHidden: 8 }, build);
  const optimizer = new AdamW(decayGroups(model, 0.1, "all"));
  const [x, y] = ["x", "y"].map((name) => build.parameter(name, [4, 3], normal(1)));
  const loss = (from: number, to: number) => () => {
    const rows = (tensor: Tensor) => tensor.slice(0, from, to).cast(compute ?? dtype);
    return model.forward(rows(x)).sub(rows(y)).square().mean();
  };
  return { model, optimizer, loss };
}

const values = async (model: FeedForward) =>
  (await Promise.all(model.parameters().map((p) => p.data()))).map((d) => [...d]);

describe("trainStep", () => {
  it("with gradient accumulation is the step of the whole batch", async () => {
    for (const [dtype, digits] of [
      ["f64", 10],
      ["f32", 5],
    ] as const) {
      const [whole, parts, single] = [setUp(dtype), setUp(dtype), setUp(dtype)];
      for (let step = 0; step < 3; step++) {
        const options = { lr: 0.01, maxNorm: 0.5 };
        const a = trainStep(whole.optimizer, [whole.loss(0, 4)], options);
        const b = trainStep(parts.optimizer, [parts.loss(0, 2), parts.loss(2, 4)], options);
        const rows = [0, 1, 2, 3].map((i) => single.loss(i, i + 1));
        const c = trainStep(single.optimizer, rows, options);
        for (const other of [b, c]) {
          expect(await other.loss.item()).toBeCloseTo(await a.loss.item(), digits);
          expect(await other.norm.item()).toBeCloseTo(await a.norm.item(), digits);
        }
      }
      const expected = await values(whole.model);
      for (const other of [parts, single]) {
        const close = expected.map((list) => list.map((value) => expect.closeTo(value, digits - 1)));
        expect(await values(other.model)).toEqual(close);
      }
    }
  });

  it("sums in f32 what is computed in half the bits: many small parts lose nothing to one large one", async () => {
    const gradientNorm = async (parts: number, compute?: "bf16") => {
      const { optimizer, loss } = setUp("f32", compute);
      const step = trainStep(optimizer, [loss(0, 4), ...Array.from({ length: parts }, () => loss(0, 1))], { lr: 0 });
      return step.norm.item();
    };
    // 300 parts of 1/301 each: beside a sum in bf16, which has 8 bits, each of the last ones would be rounded away.
    const [exact, found] = [await gradientNorm(300), await gradientNorm(300, "bf16")];
    expect(Math.abs(found - exact) / exact).toBeLessThan(0.01);
  });

  it("lowers the loss, and gives the same bits for the same seed", async () => {
    const run = async () => {
      const { model, optimizer, loss } = setUp();
      const losses: number[] = [];
      for (let step = 0; step < 60; step++) {
        const result = trainStep(optimizer, [loss(0, 4)], { lr: 0.03 });
        losses.push(await result.loss.item());
      }
      return { losses, values: await values(model) };
    };
    const first = await run();
    expect(first.losses[59]).toBeLessThan(first.losses[0] / 4);
    expect(await run()).toEqual(first);
  });

  it("leaks nothing: after any number of steps there are as many tensors as after the first", () => {
    const { optimizer, loss } = setUp();
    const step = () => {
      const { loss: value, norm } = trainStep(optimizer, [loss(0, 1), loss(1, 4)], { lr: 0.01, maxNorm: 1 });
      value.dispose();
      norm.dispose();
    };
    step();
    const before = device.memory();
    for (let i = 0; i < 20; i++) step();
    expect(device.memory()).toEqual({ ...before, peakBytes: expect.any(Number) });
  });

  it("leaks nothing when a loss throws, and then changes nothing", async () => {
    const { model, optimizer, loss } = setUp();
    const before = await values(model);
    const tensors = device.memory().tensors;
    const failing = () => {
      loss(0, 1)();
      throw new Error("no loss");
    };
    expect(() => trainStep(optimizer, [loss(0, 2), failing], { lr: 0.01 })).toThrow("no loss");
    expect(device.memory().tensors).toBe(tensors);
    expect(await values(model)).toEqual(before);
  });

  it("says by its norm that a loss was not finite, and changes nothing", async () => {
    const { model, optimizer, loss } = setUp();
    const before = await values(model);
    const { loss: value, norm } = trainStep(optimizer, [() => loss(0, 4)().mul(Number.NaN)], { lr: 0.01 });
    expect([await value.item(), await norm.item()]).toEqual([Number.NaN, Number.NaN]);
    expect(await values(model)).toEqual(before);
  });

  it("refuses no losses", () => {
    const { optimizer } = setUp();
    expect(() => trainStep(optimizer, [], { lr: 0.01 })).toThrow("trainStep: there is no loss to step on.");
  });
});
