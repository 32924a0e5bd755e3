// The check of matrix units: it asks for products that take them, believes what is right, and turns off what is not.

import { type Device, reference, type View } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { KernelContext, KernelLimits } from "../context.js";
import { matmulTuning } from "./matmul.js";
import { pays } from "./matmulSplit.js";
import { checkUnits } from "./matmulUnitsCheck.js";

describe("the check of matrix units", () => {
  let device: Device;
  let context: KernelContext;

  /** The reference, as a device that says it has units. */
  beforeEach(() => {
    device = reference();
    const limits = { splitProducts: true, workgroupSize: 1024, workgroupBytes: 49152, fallback: false };
    context = { limits: limits as KernelLimits } as KernelContext;
    Object.assign(device.backend, { context });
  });
  afterEach(() => device.dispose());

  it("believes units that are right, by products that take them, in both layouts of both operands", async () => {
    const products = vi.spyOn(device.backend.kernels, "matmul");
    expect(await checkUnits(device)).toBe(true);
    expect(matmulTuning(context).trustsUnits).toBe(true);
    const calls = products.mock.calls as unknown as readonly [View, View, View, { accumulate: boolean }][];
    expect(calls.map(([, , , { accumulate }]) => accumulate)).toEqual([false, true]);
    for (const [a, b, out] of calls) {
      const [batch, rows, columns] = out.shape;
      expect(pays({ batch, rows, columns, depth: a.shape[2] })).toBe(true);
      expect(b.shape).toEqual([1, a.shape[2], columns]);
    }
    expect(new Set(calls.map(([a]) => a.strides[2] === 1))).toEqual(new Set([true, false]));
    expect(new Set(calls.map(([, b]) => b.strides[2] === 1))).toEqual(new Set([true, false]));
  });

  it.each([
    ["leave out what they should add", 1, () => undefined],
    ["give what is no number", 0, (out: View) => device.backend.kernels.fill(out, Number.NaN)],
    ["give another product", 1, (out: View) => device.backend.kernels.fill(out, 0.001)],
  ])("turns units off that %s", async (_, call, wrong) => {
    const { kernels } = device.backend;
    const matmul = kernels.matmul.bind(kernels);
    let calls = 0;
    vi.spyOn(kernels, "matmul").mockImplementation((a, b, out, options) => {
      if (calls++ === call) wrong(out);
      else matmul(a, b, out, options);
    });
    expect(await checkUnits(device)).toBe(false);
    expect(matmulTuning(context).trustsUnits).toBe(false);
  });

  it("asks for nothing where there are none", async () => {
    Object.assign(context.limits, { splitProducts: false });
    const products = vi.spyOn(device.backend.kernels, "matmul");
    expect(await checkUnits(device)).toBe(true);
    expect(products).not.toHaveBeenCalled();
  });
});
