// Layer: WebGPU kernels. The gradient of the Mamba-2 scan: which passes run over which pieces of time, and what they hand on.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { reduceKernels } from "./reduce.js";
import { ENOUGH_GROUPS, pitchOf, sumPartials } from "./rows.js";
import { PIECE_TOKENS } from "./scanPieces.js";
import { gateBackward, sumParts } from "./scanSums.js";
import { asRows, asStates, makeOutput, makePairs, passStates, Seen, type Ssd, ssdOf, sumOuter } from "./ssdScan.js";

/** Heads of a group that a workgroup takes one after another, at most, where there is work for all. */
const BLOCK_HEADS = 4;

/** How the heads of a group are shared out: by sizes alone, because sums over them follow it. */
function blocksOf({ all, groups, heads }: Ssd): { readonly blockHeads: number; readonly blocks: number } {
  const groupHeads = heads / groups;
  let blockHeads = Math.min(BLOCK_HEADS, groupHeads);
  while (blockHeads > 1 && all * groups * Math.ceil(groupHeads / blockHeads) < ENOUGH_GROUPS / 2) blockHeads--;
  return { blockHeads, blocks: Math.ceil(groupHeads / blockHeads) };
}

type Backward = Required<Pick<Kernels, "ssdScanBackward">>;

export const ssdScanBackwardKernels = (context: KernelContext): Backward => {
  const { copy, fill } = copyKernels(context);
  const { reduce } = reduceKernels(context);
  return {
    ssdScanBackward(inputs, outputs, options) {
      const { x, A, B, C, D, z, states, dy, dfinalState } = inputs;
      const { dx, ddt, dA, dB, dC, dD, dz, ddtBias, dinitialState } = outputs;
      if (sizeOf(x.shape) === 0 || sizeOf(B.shape) === 0) {
        for (const output of [dx, ddt, dA, dB, dC, dD, dz, ddtBias]) {
          if (output && sizeOf(output.shape) > 0) fill(output, 0);
        }
        if (dinitialState && sizeOf(dinitialState.shape) > 0) {
          if (dfinalState) copy(dfinalState, dinitialState);
          else fill(dinitialState, 0);
        }
        return;
      }
      const ssd = ssdOf(inputs, options);
      const { batch, length, heads, headSize, groups, units, all, tilesP, tilesN, pieces, uniforms } = ssd;
      const seen = new Seen(
        context,
        [headSize, ssd.states],
        {
          x: asRows(x),
          B: asRows(B),
          C: asRows(C),
          z: asRows(z),
          dy: asRows(dy),
          dx: asRows(dx),
          dB: asRows(dB),
          dC: asRows(dC),
          dz: asRows(dz),
        },
        { states, dfinalState, dinitialState },
      );
      const { constants } = seen;
      const vec = (view: View) => ({ view, vec: 4 as const });
      const pairs = makePairs(context, ssd, inputs, options, seen, true);
      const stateShape = [units, headSize, ssd.states];
      let S: View = states;
      if (pieces.per > 1) {
        S = context.temporary(stateShape);
        sumOuter(context, ssd, { x, B, out: S, pairs }, seen, false);
        passStates(context, ssd, pairs, { local: S, source: states, byChunks: true }, seen);
      }

      // The gradient of y from before the gate.
      let g = dy;
      if (dy === undefined) {
        g = context.temporary(x.shape);
        fill(g, 0);
        if (dz) fill(dz, 0);
      } else if (z) {
        g = context.temporary(x.shape);
        if (dz) makeOutput(context, ssd, { x, C, S, D, y: dz, pairs }, seen);
        gateBackward(context, "ssdScanBackward", { z: asRows(z), dy: asRows(dy), dz: asRows(dz), inner: asRows(g) });
      }
      const upstream = g as View;

      const dS = context.temporary(stateShape);
      sumOuter(context, ssd, { x: upstream, B: C, out: dS, pairs }, seen, true);
      const passage = { local: dS, source: dfinalState, target: dinitialState, reversed: true };
      passStates(context, ssd, pairs, passage, seen);

      const rowSums = (1 + 2 * tilesP + tilesN) * units * PIECE_TOKENS;
      const rowPitch = heads * headSize + 2 * heads;
      const sums = context.temporary([rowSums + all * rowPitch]);
      const { blockHeads, blocks } = blocksOf(ssd);
      const weights = context.temporary([all * groups * blocks, PIECE_TOKENS * PIECE_TOKENS]);
      const told = { ...uniforms, blocks, block_heads: blockHeads };

      const pairRows = { x: asRows(x), g: asRows(upstream) };
      context.run({
        shader: "ssd-backward-pairs",
        constants,
        buffers: { ...seen.buffers(pairRows), pairs: vec(pairs), sums, weights: vec(weights) },
        writes: ["sums", "weights"],
        uniforms: { ...told, ...seen.pitches(pairRows) },
        groups: all * groups * blocks,
      });

      const xRows = { x: asRows(x), B: asRows(B), dS: asStates(dS), g: asRows(upstream), dx: asRows(dx) };
      context.run({
        shader: "ssd-backward-x",
        constants: { ...constants, dx_written: true, channel_skip: D?.shape.length === 2 },
        buffers: { ...seen.buffers(xRows), D: dx && D, pairs: vec(pairs), sums },
        writes: ["dx", "sums"],
        uniforms: { ...told, ...seen.pitches(xRows) },
        groups: units * tilesP,
      });

      const sharedShape = [blocks, batch, length, groups * ssd.states];
      const sumsOf = (out: View | undefined): View =>
        out && blocks === 1 ? asRows(out) : context.temporary(sharedShape);
      const outC = sumsOf(dC);
      const cRows = { x: asRows(upstream), S: asStates(S), other: asRows(B), C: asRows(C), out: outC };
      context.run({
        shader: "ssd-backward-states",
        constants: { ...constants, out_written: true },
        buffers: { ...seen.buffers(cRows), pairs: vec(pairs), sums, weights: vec(weights) },
        writes: ["out", "sums"],
        uniforms: { ...told, ...seen.pitches(cRows) },
        groups: all * groups * blocks * tilesN,
      });
      if (dC && blocks > 1) sumParts(context, outC, blocks, dC);
      if (dB) {
        const outB = sumsOf(dB);
        const bRows = { x: asRows(x), S: asStates(dS), other: asRows(C), out: outB };
        context.run({
          shader: "ssd-backward-states",
          constants: { ...constants, out_written: true, of_B: true },
          buffers: { ...seen.buffers(bRows), pairs: vec(pairs), weights: vec(weights) },
          writes: ["out"],
          uniforms: { ...told, ...seen.pitches(bRows) },
          groups: all * groups * blocks * tilesN,
        });
        if (blocks > 1) sumParts(context, outB, blocks, dB);
      }

      if (!(ddt || dA || dD || ddtBias)) return;
      context.run({
        shader: "ssd-backward-steps",
        constants,
        buffers: { A, ddt, sums, pairs: vec(pairs), ...seen.buffers({ S, dS }) },
        writes: ["ddt", "sums"],
        uniforms: {
          ...told,
          ...(ddt && { ddt_pitch: pitchOf("ssdScanBackward: ddt", ddt) }),
          state_items: (headSize * ssd.states) / seen.unit,
        },
        groups: units,
      });
      const partial: View = { ...sums, offset: sums.offset + rowSums, shape: [all, rowPitch], strides: [rowPitch, 1] };
      if (dA) sumPartials(context, partial, heads * headSize, dA);
      if (ddtBias) sumPartials(context, partial, heads * headSize + heads, ddtBias);
      if (dD && dD.shape.length === 2) sumPartials(context, partial, 0, dD);
      if (dD && dD.shape.length === 1) {
        const channels = context.temporary([heads, headSize]);
        sumPartials(context, partial, 0, channels);
        reduce("sum", channels, { ...dD, shape: [heads, 1], strides: [dD.strides[0], 1] });
      }
    },
  };
};
