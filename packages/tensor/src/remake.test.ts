// Layer: tensor, tests. Outputs that the tape does not hold but has made again: same gradients, less memory, and what was changed in
// place meanwhile is noticed.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Device, grad, linear, reference, rmsNorm, scope, type Tensor, valueAndGrad } from "./index.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const width = 8;
const rows = 64;

function numbers(size: number, seed: number): number[] {
  return Array.from({ length: size }, (_, i) => Math.sin(seed + 1.7 * i));
}

const tensor = (shape: readonly number[], seed: number) =>
  device
    .tensor(
      numbers(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
    )
    .reshape(...shape);

describe("an output that is made again", () => {
  it("gives its users the same gradients as one that is held, also through views and for several users", async () => {
    const [x, scale, w] = [tensor([rows, width], 1), tensor([width], 2), tensor([4, width / 2], 3)];
    const gradients = (hold: boolean) =>
      scope(() => {
        const loss = () => {
          const normed = rmsNorm(x, scale);
          // A copy is memory of its own, so it is held.
          const seen = hold ? normed.mul(1) : normed;
          const [left, right] = seen.split([width / 2, width / 2]);
          return linear(left, w).add(linear(right, w)).square().sum();
        };
        return valueAndGrad(loss, [x, scale, w]).gradients;
      });
    const [again, held] = [gradients(false), gradients(true)];
    for (const [i, gradient] of again.entries()) {
      expect(await gradient.data()).toEqual(await held[i].data());
      expect((await gradient.data()).some((value) => value !== 0)).toBe(true);
    }
  });

  it.each([
    ["is not held meanwhile", false],
    ["is held where the backend would have it so", true],
  ])("%s, and nothing after", (_, holdsOutputs) => {
    Object.defineProperty(device.backend, "holdsOutputs", { value: holdsOutputs });
    const [x, scale, w] = [tensor([rows, width], 1), tensor([width], 2), tensor([1, width], 3)];
    const bytes = rows * width * 4;
    const before = device.memory().bytes;
    scope(() => {
      valueAndGrad(() => {
        const outputs = scope(() => Array.from({ length: 5 }, () => linear(rmsNorm(x, scale), w)));
        expect(device.memory().bytes - before > 5 * bytes).toBe(holdsOutputs);
        if (!holdsOutputs) expect(device.memory().bytes - before).toBeLessThan(3 * bytes);
        return outputs.reduce((a, b) => a.add(b)).sum();
      }, [x, scale, w]);
    });
    expect(device.memory().bytes).toBe(before);
  });

  it("fails where what it is made from was changed in place, and is held where it was itself", async () => {
    const [x, scale] = [tensor([rows, width], 1), tensor([width], 2)];
    expect(() =>
      grad((input: Tensor) => {
        const y = rmsNorm(input, scale).square().sum();
        input.fillInPlace(1);
        return y;
      })(x),
    ).toThrow("rmsNorm: a value that its gradient needs, (64, 8), was changed in place");
    const [, dx] = grad((input: Tensor) => {
      const normed = rmsNorm(input, scale);
      normed.fillInPlace(3);
      return normed.square().sum();
    })(x);
    // d/dnormed is 2 * 3 everywhere, so the gradient is that of 6 sum(normed).
    const [, expected] = grad((input: Tensor) => rmsNorm(input, scale).sum().mul(6))(x);
    expect(await dx.data()).toEqual(await expected.data());
  });
});
