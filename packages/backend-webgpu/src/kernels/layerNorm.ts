// Layer: WebGPU kernels. LayerNorm over the last axis and its gradient: how rows are shared out over threads.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Kernels, sizeOf } from "@diffmamba/tensor";
import { f32, type KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { blocksFor, joiningConstants, rowUses, sumPartials, THREADS, teamFor, unrolling } from "./rows.js";

type LayerNorm = Pick<Kernels, "layerNorm" | "layerNormBackward">;

/** Registers for items of a row: forward holds what is normalised; backward that, its slope, and two sums. */
const MOST_HELD = { forward: 8, backward: 4 };

export const layerNormKernels = (context: KernelContext): Required<LayerNorm> => {
  const { fill } = copyKernels(context);
  return {
    layerNorm({ x, weight, bias }, { y, mean, rstd }, { eps }) {
      const [rows, width] = x.shape;
      if (rows === 0 || width === 0) return;
      const { fours, unit, buffers, pitches } = rowUses("layerNorm", width, { x, y }, { weight, bias });
      const items = width / unit;
      const { team, held } = teamFor(items, fours ? MOST_HELD.forward : 4 * MOST_HELD.forward);
      context.run({
        shader: "layer-norm",
        constants: { ...joiningConstants(context), ...unrolling(context), fours, team, held },
        buffers: { ...buffers, mean, rstd },
        writes: ["y", "mean", "rstd"],
        uniforms: { ...pitches, rows, items, channels: f32(width), eps: f32(eps) },
        groups: Math.ceil(rows / (THREADS / team)),
      });
    },

    layerNormBackward({ x, weight, mean, rstd, dy }, { dx, dweight, dbias }) {
      const outputs = [dx, dweight, dbias].filter((view) => view !== undefined);
      const [rows, width] = x.shape;
      if (outputs.length === 0 || width === 0) return;
      if (dy === undefined || rows === 0) {
        for (const output of outputs) if (sizeOf(output.shape) > 0) fill(output, 0);
        return;
      }
      const { fours, unit, buffers, pitches } = rowUses("layerNormBackward", width, { x, dy, dx }, { weight });
      const items = width / unit;
      const { team, held } = teamFor(items, fours ? MOST_HELD.backward : 4 * MOST_HELD.backward);
      const blocks = blocksFor(rows, 1);
      const partial = dweight && context.temporary([blocks, width]);
      const partialBias = dbias && context.temporary([blocks, width]);
      const sums = rowUses("layerNormBackward", width, { partial, partial_bias: partialBias }).buffers;
      context.run({
        shader: "layer-norm-backward",
        constants: { ...joiningConstants(context), ...unrolling(context), fours, team, held },
        buffers: { ...buffers, mean, rstd, partial, partial_bias: partialBias, ...(fours && sums) },
        writes: [dx && "dx", partial && "partial", partialBias && "partial_bias"].filter((name) => name !== undefined),
        uniforms: { ...pitches, rows, blocks, items, channels: f32(width) },
        groups: blocks,
      });
      if (partial && dweight) sumPartials(context, partial, 0, dweight);
      if (partialBias && dbias) sumPartials(context, partialBias, 0, dbias);
    },
  };
};
