// Layer: CUDA kernels. rmsNorm, addRmsNorm, layerNorm and their gradients: teams, blocks and sums in part.
// Knows layouts and native/kernels/{rms_norm,gated_norm,add_rms_norm,layer_norm}.cu. Knows no formula.

import type { Kernels, View } from "@diffmamba/tensor";
import { f32, i32, type KernelContext, pointer } from "../context.js";
import { clearRows, partBlocks, pitchArgument, sumParts, THREADS, teamFor, vectorFor } from "./rows.js";

type Norms = Pick<
  Kernels,
  "rmsNorm" | "rmsNormBackward" | "addRmsNorm" | "addRmsNormBackward" | "layerNorm" | "layerNormBackward"
>;

/** Elements of a vector where the main type is this. */
const vectorOf = ({ dtype }: View): number => (dtype === "f32" ? 4 : 8);

/** Vectors of a row that a thread keeps: kHeld of native/kernels/norm_rows.cuh. */
const HELD = 2;

/** Rows up to which each has a large team: of a token's few rows none waits for a thread with much to do. */
const FEW_ROWS = 64;

/** {@link teamFor} of forward passes. */
const forwardTeam = (rows: number, vectors: number, held: number): number =>
  teamFor(vectors, rows <= FEW_ROWS ? 1 : held);

/** Blocks for so many rows with a team to each. */
const gridOf = (rows: number, team: number): number => Math.ceil((rows * team) / THREADS);

/** Blocks of the kernels that hold their rows whole, which a multiprocessor has at once: __launch_bounds__ of native/kernels/gated_norm.cu. */
const HOLDING_BLOCKS = { forward: 3, backward: 2 };

/** Whether a team holds rows of so many vectors whole, gated before the norm: native/kernels/gated_norm.cu. */
const holdsRows = (z: View | undefined, before: boolean, vector: number, vectors: number, team: number): boolean =>
  z !== undefined && !before && vector > 1 && vectors <= HELD * team;

/** Bytes of shared memory for a row of sums of each team. */
const sumBytes = (team: number, width: number, rowsOfSums = 1): number => (4 * rowsOfSums * THREADS * width) / team;

export const normKernels = (context: KernelContext): Norms => ({
  rmsNorm: ({ x, weight, z }, { y, rstd }, { eps, groupSize, normBeforeGate }) => {
    const [rows, width] = x.shape;
    const groups = width / groupSize;
    const vector = vectorFor(vectorOf(x), groupSize, [x, z, weight, y]);
    const team = forwardTeam(rows, groupSize / vector, HELD);
    const pitches = [pitchArgument("rmsNorm: x", x), pitchArgument("rmsNorm: z", z), pitchArgument("rmsNorm: y", y)];
    if (holdsRows(z, normBeforeGate, vector, groupSize / vector, team)) {
      const most = Math.ceil((HOLDING_BLOCKS.forward * context.device.multiprocessors) / groups);
      context.launch({
        kernel: `gated_rms_norm_${x.dtype}`,
        grid: [Math.min(gridOf(rows, team), most), groups],
        block: THREADS,
        overlap: true,
        args: [...[x, z, weight, y, rstd].map(pointer), i32(rows), i32(groupSize), ...pitches, f32(eps), i32(team)],
      });
      return;
    }
    context.launch({
      kernel: `rms_norm_${x.dtype}_v${vector}`,
      grid: gridOf(rows * groups, team),
      block: THREADS,
      overlap: true,
      args: [
        ...[x, z, weight, y, rstd].map(pointer),
        i32(rows * groups),
        i32(groups),
        i32(groupSize),
        ...pitches,
        f32(eps),
        i32(normBeforeGate),
        i32(team),
      ],
    });
  },
  rmsNormBackward: ({ x, weight, z, rstd, dy }, { dx, dweight, dz }, { groupSize, normBeforeGate }) => {
    const [rows, width] = x.shape;
    if (dy === undefined || rows === 0) {
      for (const view of [dx, dweight, dz]) if (view) clearRows(context, view);
      return;
    }
    const groups = width / groupSize;
    const vector = vectorFor(vectorOf(x), groupSize, [x, z, weight, dy, dx, dz]);
    const team = teamFor(groupSize / vector, HELD);
    const whole = holdsRows(z, normBeforeGate, vector, groupSize / vector, team);
    const most = Math.ceil((HOLDING_BLOCKS.backward * context.device.multiprocessors) / groups);
    const blocks = Math.min(partBlocks(rows, team), whole ? most : Number.POSITIVE_INFINITY);
    const parts = dweight && context.temporary([blocks, width], "f32");
    context.launch({
      kernel: whole ? `gated_rms_norm_backward_${x.dtype}` : `rms_norm_backward_${x.dtype}_v${vector}`,
      grid: [blocks, groups],
      block: THREADS,
      shared: parts ? sumBytes(team, groupSize) : 0,
      args: [
        ...[x, z, weight, rstd, dy, dx, dz, parts].map(pointer),
        i32(rows),
        ...(whole ? [] : [i32(groups)]),
        i32(groupSize),
        pitchArgument("rmsNormBackward: x", x),
        pitchArgument("rmsNormBackward: z", z),
        pitchArgument("rmsNormBackward: dy", dy),
        pitchArgument("rmsNormBackward: dx", dx),
        pitchArgument("rmsNormBackward: dz", dz),
        ...(whole ? [] : [i32(normBeforeGate)]),
        i32(team),
      ],
    });
    if (parts && dweight) sumParts(context, parts, 0, dweight);
  },
  addRmsNorm: ({ x, y, weight }, { sum, normed, rstd }, { eps }) => {
    const [rows, width] = x.shape;
    const vector = vectorFor(vectorOf(weight), width, [x, y, weight, sum, normed]);
    const team = forwardTeam(rows, width / vector, 2 * HELD);
    context.launch({
      kernel: `add_rms_norm_${x.dtype}_${weight.dtype}_v${vector}`,
      grid: gridOf(rows, team),
      block: THREADS,
      overlap: true,
      args: [
        ...[x, y, weight, sum, normed, rstd].map(pointer),
        i32(rows),
        i32(width),
        pitchArgument("addRmsNorm: x", x),
        pitchArgument("addRmsNorm: y", y),
        pitchArgument("addRmsNorm: sum", sum),
        pitchArgument("addRmsNorm: normed", normed),
        f32(eps),
        i32(team),
      ],
    });
  },
  addRmsNormBackward: ({ sum, weight, rstd, dsum, dnormed }, { dx, dy, dweight }) => {
    const [rows, width] = sum.shape;
    if (rows === 0) {
      if (dweight) context.clear(dweight);
      return;
    }
    const vector = vectorFor(vectorOf(weight), width, [sum, weight, dsum, dnormed, dx, dy]);
    const team = teamFor(width / vector, HELD);
    const blocks = partBlocks(rows, team);
    const parts = dweight && context.temporary([blocks, width], "f32");
    context.launch({
      kernel: `add_rms_norm_backward_${sum.dtype}_${weight.dtype}_v${vector}`,
      grid: blocks,
      block: THREADS,
      shared: parts ? sumBytes(team, width) : 0,
      args: [
        ...[sum, weight, rstd, dsum, dnormed, dx, dy, parts].map(pointer),
        i32(rows),
        i32(width),
        pitchArgument("addRmsNormBackward: sum", sum),
        pitchArgument("addRmsNormBackward: dsum", dsum),
        pitchArgument("addRmsNormBackward: dnormed", dnormed),
        pitchArgument("addRmsNormBackward: dx", dx),
        pitchArgument("addRmsNormBackward: dy", dy),
        i32(team),
      ],
    });
    if (parts && dweight) sumParts(context, parts, 0, dweight);
  },
  layerNorm: ({ x, weight, bias }, { y, mean, rstd }, { eps }) => {
    const [rows, width] = x.shape;
    const team = teamFor(width / 8, HELD);
    context.launch({
      kernel: `layer_norm_${x.dtype}`,
      grid: gridOf(rows, team),
      block: THREADS,
      args: [
        ...[x, weight, bias, y, mean, rstd].map(pointer),
        i32(rows),
        i32(width),
        pitchArgument("layerNorm: x", x),
        pitchArgument("layerNorm: y", y),
        f32(eps),
        i32(team),
      ],
    });
  },
  layerNormBackward: ({ x, weight, mean, rstd, dy }, { dx, dweight, dbias }) => {
    const [rows, width] = x.shape;
    if (dy === undefined || rows === 0) {
      for (const view of [dx, dweight, dbias]) if (view) clearRows(context, view);
      return;
    }
    const team = teamFor(width / 8, HELD);
    const blocks = partBlocks(rows, team);
    const parts = dweight || dbias ? context.temporary([blocks, 2 * width], "f32") : undefined;
    context.launch({
      kernel: `layer_norm_backward_${x.dtype}`,
      grid: blocks,
      block: THREADS,
      shared: parts ? sumBytes(team, width, 2) : 0,
      args: [
        ...[x, weight, mean, rstd, dy, dx, parts].map(pointer),
        i32(rows),
        i32(width),
        pitchArgument("layerNormBackward: x", x),
        pitchArgument("layerNormBackward: dy", dy),
        pitchArgument("layerNormBackward: dx", dx),
        i32(team),
      ],
    });
    if (parts && dweight) sumParts(context, parts, 0, dweight);
    if (parts && dbias) sumParts(context, parts, width, dbias);
  },
});
