// Layer: WebGPU kernels. RMSNorm, plain, gated and in groups, and its gradient: how rows are shared out over threads.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import { type Dispatch, f32, type KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { canBeDeferred } from "./matmulNormed.js";
import { blocksFor, joiningConstants, rowUses, sumPartials, THREADS, teamFor, unrolling } from "./rows.js";

type RmsNorm = Pick<Kernels, "rmsNorm" | "rmsNormBackward">;

/** Registers for items of a row: forward holds what is normalised, with or without its gate; backward x, z, dy and a sum. */
const MOST_HELD = { plain: 8, gated: 4, backward: 4 };

function gateConstants(z: View | undefined, normBeforeGate: boolean): Readonly<Record<string, boolean>> {
  if (z === undefined) return {};
  return normBeforeGate ? { gate_last: true } : { gate_first: true };
}

export const rmsNormKernels = (context: KernelContext): Required<RmsNorm> => {
  const { fill } = copyKernels(context);
  return {
    rmsNorm({ x, weight, z }, { y, rstd }, { eps, groupSize, normBeforeGate }) {
      const [rows, width] = x.shape;
      if (rows === 0 || width === 0) return;
      const { fours, unit, buffers, pitches } = rowUses("rmsNorm", groupSize, { x, z, y }, { weight });
      const items = groupSize / unit;
      const parts = width / groupSize;
      const most = z === undefined ? MOST_HELD.plain : MOST_HELD.gated;
      const { team, held } = teamFor(items, fours ? most : 4 * most);
      const dispatch: Dispatch = {
        shader: "rms-norm",
        constants: {
          ...joiningConstants(context),
          ...unrolling(context),
          ...gateConstants(z, normBeforeGate),
          fours,
          team,
          held,
        },
        buffers: { ...buffers, rstd },
        writes: ["y", "rstd"],
        uniforms: { ...pitches, units: rows * parts, parts, items, channels: f32(groupSize), eps: f32(eps) },
        groups: Math.ceil((rows * parts) / (THREADS / team)),
      };
      const row = { x, z, weight, normed: y, rstd, eps, normBeforeGate };
      if (parts === 1 && canBeDeferred(row)) context.defer({ row, dispatch });
      else context.run(dispatch);
    },

    rmsNormBackward({ x, weight, z, rstd, dy }, { dx, dweight, dz }, { groupSize, normBeforeGate }) {
      const outputs = [dx, dweight, dz].filter((view) => view !== undefined);
      const [rows, width] = x.shape;
      if (outputs.length === 0 || width === 0) return;
      if (dy === undefined || rows === 0) {
        for (const output of outputs) if (sizeOf(output.shape) > 0) fill(output, 0);
        return;
      }
      const { fours, unit, buffers, pitches } = rowUses("rmsNormBackward", groupSize, { x, z, dy, dx, dz }, { weight });
      const items = groupSize / unit;
      const parts = width / groupSize;
      const { team, held } = teamFor(items, fours ? MOST_HELD.backward : 4 * MOST_HELD.backward);
      const blocks = blocksFor(rows, parts);
      const partial = dweight && context.temporary([blocks, width]);
      context.run({
        shader: "rms-norm-backward",
        constants: {
          ...joiningConstants(context),
          ...unrolling(context),
          ...gateConstants(z, normBeforeGate),
          fours,
          team,
          held,
        },
        buffers: { ...buffers, rstd, partial: partial && fours ? { view: partial, vec: 4 } : partial },
        writes: Object.entries({ dx, dz, partial }).flatMap(([name, view]) => (view ? [name] : [])),
        uniforms: { ...pitches, rows, parts, blocks, items, row_items: width / unit, channels: f32(groupSize) },
        groups: blocks * parts,
      });
      if (partial && dweight) sumPartials(context, partial, 0, dweight);
    },
  };
};
