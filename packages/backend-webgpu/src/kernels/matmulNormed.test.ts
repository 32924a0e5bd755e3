// One row that is normed and multiplied: in one dispatch, with all that the norm gives, and by itself where something comes between.

import { addRmsNorm, linear, noGrad, rmsNorm, scope, type Tensor } from "@diffmamba/tensor";
import { expect, it, vi } from "vitest";
import type { WebGpuBackend } from "../backend.js";
import { describeWithDevice } from "./device.testing.js";
import { expectLikeReference, numbers } from "./routines.testing.js";

type Operand = "x" | "y" | "weight" | "matrix";

describeWithDevice("a normed row times a matrix on WebGPU", (device) => {
  const names = (run: () => void): string[] => {
    const spy = vi.spyOn((device().backend as WebGpuBackend).context, "run");
    try {
      run();
      return spy.mock.calls.map(([{ shader }]) => (typeof shader === "string" ? shader : shader.name));
    } finally {
      spy.mockRestore();
    }
  };
  const row = (width: number) => numbers([1, 1, width], -2, 2);
  const inputs = (width: number, rows: number) => ({
    ...{ x: row(width), y: row(width), weight: numbers([width]), matrix: numbers([rows, width]) },
  });
  const cases: Record<string, (t: Record<"x" | "y" | "weight", Tensor>) => { normed: Tensor; sum?: Tensor }> = {
    "a residual sum": ({ x, y, weight }) => addRmsNorm(x, y, weight, { eps: 1e-5 }),
    "a gate before the norm": ({ x, y, weight }) => ({ normed: rmsNorm(x, weight, { gate: y }) }),
    "a gate after the norm": ({ x, y, weight }) => ({ normed: rmsNorm(x, weight, { gate: y, normBeforeGate: true }) }),
  };
  const sizes = [
    [20, 9],
    [1100, 3],
  ] as const;

  for (const [name, norm] of Object.entries(cases)) {
    for (const [width, rows] of sizes) {
      it(`${name}, ${rows} rows of ${width}`, async () => {
        const compute = (t: Record<Operand, Tensor>) =>
          noGrad(() => {
            const { normed, sum } = norm(t);
            return { product: linear(normed, t.matrix), normed, ...(sum && { sum }) };
          });
        await expectLikeReference<never, Operand>(device(), { inputs: {}, constants: inputs(width, rows), compute });
      });
    }
  }

  it("is one dispatch, whatever of it is freed before, and two where something comes between", () => {
    const tensors = ["x", "y"].map(() => device().ones([1, 1, 64]));
    const [weight, matrix] = [device().ones([64]), device().ones([8, 64])];
    const run = (between: () => void) =>
      names(() =>
        noGrad(() => {
          // The sum, which nobody wants, is freed at once.
          const normed = scope(() => addRmsNorm(tensors[0], tensors[1], weight, { eps: 1e-5 }).normed);
          between();
          linear(normed, matrix).dispose();
          normed.dispose();
        }),
      );
    expect(run(() => undefined)).toEqual([expect.stringMatching(/^matmul-normed/)]);
    expect(run(() => weight.neg().dispose())).toEqual(["unary", expect.stringMatching(/^matmul-dot/)]);
    expect(run(() => tensors[0].dispose())).toEqual([expect.stringMatching(/^matmul-normed/)]);
    for (const tensor of [tensors[1], weight, matrix]) tensor.dispose();
  });

  it("gives back what was freed while it was put off", async () => {
    const before = device().memory().tensors;
    const x = device().ones([1, 64]);
    const weight = device().ones([64]);
    const normed = noGrad(() => rmsNorm(x, weight, { eps: 0 }));
    x.dispose();
    // A tensor of the same size, whose memory must be another's until then.
    const other = device().full([1, 64], 5);
    expect(await normed.data()).toEqual(new Float32Array(64).fill(1));
    for (const tensor of [weight, normed, other]) tensor.dispose();
    expect(device().memory().tensors).toBe(before);
  });
});
