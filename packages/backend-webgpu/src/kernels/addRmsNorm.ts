// Layer: WebGPU kernels. A residual sum with its RMSNorm, and its gradient: how rows are shared out over threads.
// Knows layouts and the shaders' parameters. Knows no formula.

import { isHalf, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import { type Dispatch, f32, type KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { canBeDeferred } from "./matmulNormed.js";
import { blocksFor, joiningConstants, rowUses, sumPartials, THREADS, teamFor, unrolling } from "./rows.js";

type AddRmsNorm = Pick<Kernels, "addRmsNorm" | "addRmsNormBackward">;

/** Registers for items of a row: forward holds the sum; backward that, its slope, and a sum over rows. */
const MOST_HELD = { forward: 8, backward: 4 };

export const addRmsNormKernels = (context: KernelContext): Required<AddRmsNorm> => {
  const { copy, fill } = copyKernels(context);

  /** An f32 view with the values of `view`: itself, or a copy of half precision. */
  const widened = (view: View): View => {
    if (!isHalf(view.dtype)) return view;
    const wide = context.temporary(view.shape);
    copy(view, wide);
    return wide;
  };

  /** Where to write f32: `view` itself, or a temporary, of which `narrow` becomes a copy in the end. */
  const target = (view: View): View => (isHalf(view.dtype) ? context.temporary(view.shape) : view);
  const narrow = (wide: View, view: View): void => {
    if (wide !== view) copy(wide, view);
  };

  return {
    addRmsNorm({ x, y, weight }, { sum, normed, rstd }, { eps }) {
      const [rows, width] = x.shape;
      if (rows === 0 || width === 0) return;
      const wide = { sum: sum && target(sum), normed: target(normed) };
      const { fours, unit, buffers, pitches } = rowUses(
        "addRmsNorm",
        width,
        { x: widened(x), y: y && widened(y), ...wide },
        { weight: widened(weight) },
      );
      const items = width / unit;
      const { team, held } = teamFor(items, fours ? MOST_HELD.forward : 4 * MOST_HELD.forward);
      const dispatch: Dispatch = {
        shader: "add-rms-norm",
        constants: {
          ...joiningConstants(context),
          ...unrolling(context),
          fours,
          team,
          held,
          sum_bf16: sum?.dtype === "bf16",
          sum_f16: sum?.dtype === "f16",
        },
        buffers: { ...buffers, rstd },
        writes: ["normed", "rstd", ...(sum ? ["sum"] : [])],
        uniforms: { ...pitches, rows, items, channels: f32(width), eps: f32(eps) },
        groups: Math.ceil(rows / (THREADS / team)),
      };
      const row = { x, y, weight, sum, normed, rstd, eps, normBeforeGate: false };
      if (canBeDeferred(row)) {
        context.defer({ row, dispatch });
        return;
      }
      context.run(dispatch);
      if (sum && wide.sum) narrow(wide.sum, sum);
      narrow(wide.normed, normed);
    },

    addRmsNormBackward({ sum, weight, rstd, dsum, dnormed }, { dx, dy, dweight }) {
      const [rows, width] = sum.shape;
      const outputs = [dx, dy, dweight].filter((view) => view !== undefined);
      if (outputs.length === 0 || width === 0) return;
      if (dnormed === undefined || rows === 0) {
        if (dweight) fill(dweight, 0);
        for (const output of [dx, dy]) {
          if (output === undefined || sizeOf(output.shape) === 0) continue;
          if (dsum) copy(dsum, output);
          else fill(output, 0);
        }
        return;
      }
      // One of the two has the value in f32, from which the other is rounded.
      const passed = dx ?? dy;
      const wide = { dx: passed && target(passed), dweight: dweight && target(dweight) };
      const { fours, unit, buffers, pitches } = rowUses(
        "addRmsNormBackward",
        width,
        { x: widened(sum), dy: widened(dnormed), dx: wide.dx, dsum: dsum && wide.dx && widened(dsum) },
        { weight: widened(weight) },
      );
      const items = width / unit;
      const { team, held } = teamFor(items, fours ? MOST_HELD.backward : 4 * MOST_HELD.backward);
      const blocks = blocksFor(rows, 1);
      const partial = wide.dweight && context.temporary([blocks, width]);
      context.run({
        shader: "rms-norm-backward",
        constants: { ...joiningConstants(context), ...unrolling(context), fours, team, held },
        buffers: { ...buffers, rstd, partial: partial && fours ? { view: partial, vec: 4 } : partial },
        writes: Object.entries({ dx: wide.dx, partial }).flatMap(([name, view]) => (view ? [name] : [])),
        uniforms: { ...pitches, rows, parts: 1, blocks, items, row_items: items, channels: f32(width) },
        groups: blocks,
      });
      if (partial && wide.dweight && dweight) {
        sumPartials(context, partial, 0, wide.dweight);
        narrow(wide.dweight, dweight);
      }
      if (wide.dx && passed) narrow(wide.dx, passed);
      if (wide.dx && dx && dy) copy(wide.dx, dy);
    },
  };
};
