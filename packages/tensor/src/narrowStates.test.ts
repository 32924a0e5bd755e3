// States of scans in 16 bits: which kernels see them as they are, what is refused, and how gradients pass.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Device, noGrad, reference, selectiveScan, type Tensor, valueAndGrad } from "./index.js";

let device: Device;
beforeEach(() => {
  device = reference();
});
afterEach(() => device.dispose());

/** A scan of one channel and one state: h = e^-softplus(0) h + softplus(0), y = h. */
function scan(initialState: Tensor, { length = 1, replacesState = false } = {}) {
  const ones = device.ones([1, length, 1, 1]);
  const inputs = { u: device.ones([1, length, 1]), delta: device.zeros([1, length, 1]), A: device.full([1, 1], -1) };
  return selectiveScan({ ...inputs, B: ones, C: ones, initialState }, { replacesState });
}

const state = (value: number, dtype: "bf16" | "f16" | "i32" | "f64" = "bf16") =>
  device.from([value], [1, 1, 1], dtype === "i32" ? "i32" : "f32").cast(dtype);

describe("a state in 16 bits", () => {
  it("is rounded after y was made of it", async () => {
    // e^-ln 2 = 1/2: 1.5 / 2 + ln 2.
    const exact = 0.75 + Math.LN2;
    const { y, finalState } = scan(state(1.5));
    expect(await y.item()).toBeCloseTo(exact, 6);
    expect(finalState.dtype).toBe("bf16");
    expect(await finalState.item()).toBe(1.4453125);
    expect(Math.abs(1.4453125 - exact)).toBeLessThan(2 ** -8);
  });

  it.each([
    ["as it is, of one token", true, 1, false, "bf16"],
    ["in f32, of several", true, 2, false, "f32"],
    ["in f32, under a tape", true, 1, true, "f32"],
    ["in f32, by a backend that takes no other", false, 1, false, "f32"],
  ])("comes to the kernel %s", (_, narrowStates, length, taped, dtype) => {
    Object.defineProperty(device.backend, "narrowStates", { value: narrowStates });
    const kernels = device.backend.kernels as Required<typeof device.backend.kernels>;
    const kernel = vi.spyOn(kernels, "selectiveScan").mockReturnValue(undefined);
    const held = state(1);
    if (taped) valueAndGrad(() => scan(held, { length }).y.sum(), [held]);
    else noGrad(() => scan(held, { length, replacesState: length === 1 }));
    const [inputs, outputs] = kernel.mock.calls[0] as unknown as Record<string, { dtype: string; buffer: unknown }>[];
    expect([inputs.initialState.dtype, outputs.finalState.dtype]).toEqual([dtype, dtype]);
    if (dtype === "bf16") expect(inputs.initialState.buffer).toBe(held.view().buffer);
  });

  it("has gradients, which pass through the rounding", async () => {
    const held = state(1.5, "f16");
    const { gradients } = valueAndGrad(() => scan(held, { length: 2 }).finalState.cast("f32").sum(), [held]);
    const [dState] = gradients;
    expect(dState.dtype).toBe("f16");
    expect(await dState.item()).toBe(0.25);
  });

  it("is refused in place under a tape, where it is not contiguous, and in another type", () => {
    const held = state(1);
    expect(() => valueAndGrad(() => scan(held, { replacesState: true }).y.sum(), [held])).toThrow(
      "selectiveScan: finalState replaces initialState, which must be contiguous, and outside a tape.",
    );
    const wide = device.zeros([2, 3, 4], "bf16").transpose();
    const rows = (shape: readonly number[]) => device.ones(shape);
    const strided = { initialState: wide, u: rows([2, 1, 4]), delta: rows([2, 1, 4]), A: rows([4, 3]) };
    const shared = { B: rows([2, 1, 1, 3]), C: rows([2, 1, 1, 3]) };
    expect(() => selectiveScan({ ...strided, ...shared }, { replacesState: true })).toThrow("must be contiguous");
    expect(selectiveScan({ ...strided, ...shared }).finalState.dtype).toBe("bf16");
    expect(() => scan(state(1, "f64"))).toThrow(
      "selectiveScan: initialState is f64; with f32 inputs it must be f32, bf16 or f16.",
    );
    expect(() => scan(state(1, "i32"))).toThrow("initialState is i32; it takes floats");
  });
});
