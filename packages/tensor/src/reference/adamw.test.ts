// Layer: tests of the reference backend. AdamW against the golden steps, clipping, skipped steps, and the global norm.

import { describe, expect, it } from "vitest";
import type { View } from "../view.js";
import { place, placeInts, relativeError, type Sample, valuesOf } from "./checks.testing.js";
import { golden } from "./golden.testing.js";
import { routines } from "./routines.js";
import { ints } from "./views.js";

const scalarOf = (value: number, dtype: "f32" | "f64" = "f64"): View => place([], Float64Array.of(value), { dtype });
const viewOf = ({ shape, values }: Sample, dtype: "f32" | "f64" = "f64"): View => place(shape, values, { dtype });

function state(start: readonly Sample[], dtype: "f32" | "f64" = "f64") {
  const zeros = () => start.map(({ shape, values }) => place(shape, new Float64Array(values.length), { dtype }));
  return { params: start.map((p) => viewOf(p, dtype)), m: zeros(), v: zeros(), step: placeInts([], [0]) };
}

describe("adamw", () => {
  const { meta, tensors } = golden("adamw");
  const options = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: meta.weight_decay as number[] };

  it.each(["f64", "f32"] as const)("agrees with the golden steps in %s", (dtype) => {
    const { lr, betas, eps, steps } = meta as { lr: number; betas: number[]; eps: number; steps: number };
    expect([options.beta1, options.beta2, options.eps]).toEqual([...betas, eps]);
    const all = state([tensors.p0_0, tensors.p1_0], dtype);
    for (let t = 1; t <= steps; t++) {
      const grads = [viewOf(tensors[`g0_${t}`], dtype), viewOf(tensors[`g1_${t}`], dtype)];
      const one = scalarOf(1, dtype);
      routines.adamw({ ...all, grads, lr: scalarOf(lr, dtype), scale: one, norm: one }, options);
      for (const j of [0, 1]) {
        const error = relativeError(valuesOf(all.params[j]), tensors[`p${j}_${t}`].values);
        expect(error, `p${j}_${t}`).toBeLessThan(dtype === "f64" ? 2e-7 : 1e-6);
      }
    }
    expect([...ints("step", all.step)]).toEqual([steps]);
  });

  const start = { shape: [2], values: Float64Array.of(1, -2) };
  const gradient = { shape: [2], values: Float64Array.of(0.5, -0.25) };
  const once = (scale: number, norm: number, grad: Sample) => {
    const all = state([start]);
    const rest = { grads: [viewOf(grad)], lr: scalarOf(0.1), scale: scalarOf(scale), norm: scalarOf(norm) };
    routines.adamw({ ...all, ...rest }, { ...options, weightDecay: [0.1] });
    return { param: [...valuesOf(all.params[0])], m: [...valuesOf(all.m[0])], step: [...ints("step", all.step)] };
  };

  it("multiplies gradients by the scale first", () => {
    expect(once(0.5, 2, gradient).m).toEqual([0.5 * 0.1 * 0.5, -0.25 * 0.1 * 0.5].map((x) => expect.closeTo(x, 15)));
    expect(once(2, 1, gradient)).toEqual(once(1, 1, { shape: [2], values: Float64Array.of(1, -0.5) }));
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("changes nothing where the norm is %d", (norm) => {
    const bad = { shape: [2], values: Float64Array.of(Number.NaN, 1) };
    expect(once(1, norm, bad)).toEqual({ param: [1, -2], m: [0, 0], step: [0] });
  });

  it("says which tensor is not contiguous", () => {
    const all = state([start]);
    const wide = place([2, 1], Float64Array.of(1, 2), { inner: 1, gap: 1 });
    const rest = { grads: [wide], lr: scalarOf(0.1), scale: scalarOf(1), norm: scalarOf(1) };
    expect(() => routines.adamw({ ...all, ...rest }, { ...options, weightDecay: [0] })).toThrow("gradient 0 (2, 1)");
  });
});

describe("globalNorm", () => {
  it("is the norm of all elements together", () => {
    const out = place([], undefined, { dtype: "f32" });
    const tensors = [
      place([2, 1], Float64Array.of(1, 2)),
      place([1], Float64Array.of(2), { dtype: "f32" }),
      place([0]),
    ];
    routines.globalNorm(tensors, out);
    expect([...valuesOf(out)]).toEqual([3]);
  });

  it("is not finite where an element is not", () => {
    const out = place([]);
    routines.globalNorm([place([2], Float64Array.of(1, Number.NaN))], out);
    expect(valuesOf(out)[0]).toBeNaN();
  });
});
