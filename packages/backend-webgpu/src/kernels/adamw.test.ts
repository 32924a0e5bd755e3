// The optimizer's step and the norm of gradients: bias correction at the first step, numbers that are 0, and lists of many tensors.

import { adamw, type Device, globalNorm, reference, type Tensor } from "@diffmamba/tensor";
import { expect, it } from "vitest";
import { scattered } from "./agreement.testing.js";
import { describeWithDevice } from "./device.testing.js";

interface Step {
  readonly param: Float32Array;
  readonly grad: Float32Array;
  readonly step?: number;
  readonly norm?: number;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly times?: number;
}

/** Parameters after so many steps from moments of 0, and the count of steps. */
async function optimize(device: Device, options: Step): Promise<{ param: Float64Array; steps: number }> {
  const { param, grad, step = 0, norm = 1, beta1 = 0.9, beta2 = 0.999, times = 1 } = options;
  const vector = (data: Float32Array) => device.from(data, [data.length]);
  const params = [vector(param)];
  const tensors = {
    params,
    grads: [vector(grad)],
    m: [device.zeros([param.length])],
    v: [device.zeros([param.length])],
    lr: device.full([], 1e-3),
    step: device.from([step], [], "i32"),
    scale: device.full([], 1),
    norm: device.full([], norm),
  };
  for (let i = 0; i < times; i++) adamw(tensors, { beta1, beta2, eps: 1e-8, weightDecay: [0.1] });
  const result = { param: Float64Array.from(await params[0].data()), steps: (await tensors.step.data())[0] };
  for (const tensor of Object.values<Tensor | Tensor[]>(tensors).flat()) tensor.dispose();
  return result;
}

function largestDifference(a: Float64Array, b: Float64Array): number {
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
}

describeWithDevice("adamw and globalNorm on WebGPU", (device) => {
  for (const size of [64, 67]) {
    for (const [beta1, beta2] of [
      [0.9, 0.999],
      [0.9, 0.99999],
      [0, 0],
    ]) {
      it(`corrects the bias of the first steps: ${size} numbers, beta ${beta1} and ${beta2}`, async () => {
        const step = { param: scattered(size), grad: scattered(size, -1e-3, 1e-3), beta1, beta2, times: 3 };
        const actual = await optimize(device(), step);
        const expected = await optimize(reference(), step);
        expect(actual.steps).toBe(3);
        // A step moves a number by about 1e-3.
        expect(largestDifference(actual.param, expected.param)).toBeLessThan(5e-7);
      });
    }
  }

  it("counts far", async () => {
    const step = { param: scattered(8), grad: scattered(8), step: 2 ** 24 - 1 };
    const actual = await optimize(device(), step);
    expect(actual.steps).toBe(2 ** 24);
    expect(largestDifference(actual.param, (await optimize(reference(), step)).param)).toBeLessThan(5e-7);
  });

  it("only decays a number whose gradient was always 0", async () => {
    const { param } = await optimize(device(), { param: new Float32Array(8).fill(2), grad: new Float32Array(8) });
    for (const x of param) expect(x).toBeCloseTo(2 * (1 - 1e-4), 6);
  });

  it.each([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN])(
    "changes nothing where the norm is %d",
    async (norm) => {
      const param = scattered(8);
      const result = await optimize(device(), { param, grad: scattered(8), norm, step: 5 });
      expect(result).toEqual({ param: Float64Array.from(param), steps: 5 });
    },
  );

  it("adds up many tensors, in fours and one by one, of several stretches and of none", async () => {
    const sizes = [3, 0, 16384, 20000, 1, 8, 12, 4097, 16, 20, 24, 28, 2, 5, 7, 11, 40000];
    const norms = await Promise.all(
      [device(), reference()].map(async (on) => {
        const tensors = sizes.map((size, i) => on.from(scattered(size, -1, 1 + i / 10), [size]));
        using norm = globalNorm(tensors);
        for (const tensor of tensors) tensor.dispose();
        return norm.item();
      }),
    );
    expect(Math.abs(norms[0] / norms[1] - 1)).toBeLessThan(1e-6);
  });

  it.each([0, Number.POSITIVE_INFINITY, Number.NaN])(
    "the norm of a list with %d beside zeros is that",
    async (number) => {
      using zeros = device().zeros([100]);
      using one = device().full([], number);
      using norm = globalNorm([zeros, one]);
      expect(await norm.item()).toBe(number);
    },
  );
});
