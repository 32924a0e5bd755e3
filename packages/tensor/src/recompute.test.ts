// Layer: tensor, tests. What is computed again for its gradient gives the same bits as what was kept, inputs that pass through included.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addRmsNorm, type Device, dropout, recompute, reference, type Tensor, valueAndGrad } from "./index.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const tensor = (shape: readonly number[], seed: number): Tensor =>
  device.from(
    Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(seed + 1.7 * i)),
    shape,
  );

/** Two blocks in a residual stream; the first gives its input back as the stream. */
function stack(x: Tensor, w: readonly Tensor[], step: Tensor, again: boolean): Tensor {
  const block = (i: number) => (stream: Tensor, y?: Tensor) => {
    const { sum, normed } = addRmsNorm(stream, y, w[2]);
    return [sum, dropout(normed.matmul(w[i]).tanh(), 0.3, { seed: 1, stream: `block ${i}`, step })];
  };
  const run = (i: number, inputs: Tensor[]) => (again ? recompute(block(i), inputs) : block(i)(inputs[0], inputs[1]));
  const first = run(0, [x]);
  const second = run(1, first);
  return second[0].mul(second[1]).sum();
}

describe("recompute", () => {
  it("gives the values and the gradients of what is kept, bit for bit, and holds less", async () => {
    const x = tensor([64, 8], 1);
    const w = [tensor([8, 8], 2), tensor([8, 8], 3), tensor([8], 4)];
    const step = device.zeros([], "i32");
    const results: unknown[] = [];
    const peaks: number[] = [];
    for (const again of [false, true]) {
      const before = device.memory();
      device.resetPeak();
      const { value, gradients } = valueAndGrad(() => stack(x, w, step, again), [x, ...w]);
      peaks.push(device.memory().peakBytes - before.bytes);
      results.push(await Promise.all([value, ...gradients].map(async (tensor) => [...(await tensor.data())])));
      for (const tensor of [value, ...gradients]) tensor.dispose();
      expect(device.memory().tensors).toBe(before.tensors);
    }
    expect(results[1]).toEqual(results[0]);
    expect(peaks[1]).toBeLessThan(peaks[0]);
  });

  it("adds to the sums that are given, bit for bit as what is kept does", async () => {
    const x = tensor([64, 8], 1);
    const w = [tensor([8, 8], 2), tensor([8, 8], 3), tensor([8], 4)];
    const step = device.zeros([], "i32");
    const results: unknown[] = [];
    for (const again of [false, true]) {
      const before = device.memory().tensors;
      const into = [undefined, ...w.map((weight) => weight.mul(0.5))];
      const { value, gradients } = valueAndGrad(() => stack(x, w, step, again), [x, ...w], { into });
      results.push(await Promise.all([value, ...gradients].map(async (tensor) => [...(await tensor.data())])));
      for (const [i, sum] of into.entries()) if (sum) expect(gradients[i].storage).toBe(sum.storage);
      for (const tensor of [value, ...gradients, ...into]) tensor?.dispose();
      expect(device.memory().tensors).toBe(before);
    }
    expect(results[1]).toEqual(results[0]);
  });

  it("without a tape just computes; of what has no gradient it gives none", async () => {
    const x = tensor([3], 1);
    const [y] = recompute((z) => [z.exp()], [x]);
    expect(await y.data()).toEqual(await x.exp().data());
    const w = tensor([3], 2);
    const { gradients } = valueAndGrad(() => recompute((z) => [z.exp().mul(w), z], [x])[0].sum(), [w]);
    expect(await gradients[0].data()).toEqual(await x.exp().data());
  });
});
