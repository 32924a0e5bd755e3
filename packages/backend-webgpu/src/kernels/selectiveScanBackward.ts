// Layer: WebGPU kernels. The gradient of the selective scan: which passes run over which pieces of time, and what they hand on.
// Knows layouts and the shaders' parameters. Knows no formula.

import { BackendError, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { sumPartials, THREADS } from "./rows.js";
import { gateBackward, sumParts } from "./scanSums.js";
import { pitchesOf, prepareScan, runPassage, runPieces, type Scan, scanOf } from "./selectiveScan.js";

/** As many states, in fours, as a workgroup has threads for eight channels. */
const MOST_STATES = 128;

/** Threads that take a channel together, four states each. */
function teamOf({ quads }: Scan): number {
  return 2 ** Math.ceil(Math.log2(quads));
}

type Backward = Required<Pick<Kernels, "selectiveScanBackward">>;

export const selectiveScanBackwardKernels = (context: KernelContext): Backward => {
  const { copy, fill } = copyKernels(context);
  return {
    selectiveScanBackward(inputs, outputs, options) {
      const { u, delta, A, B, C, z, states, dy, dfinalState } = inputs;
      const { du, ddelta, dA, dB, dC, dD, dz, ddeltaBias, dinitialState } = outputs;
      if (sizeOf(u.shape) === 0 || sizeOf(A.shape) === 0) {
        for (const output of [du, ddelta, dA, dB, dC, dD, dz, ddeltaBias]) {
          if (output && sizeOf(output.shape) > 0) fill(output, 0);
        }
        if (dinitialState && sizeOf(dinitialState.shape) > 0) {
          if (dfinalState) copy(dfinalState, dinitialState);
          else fill(dinitialState, 0);
        }
        return;
      }
      const scan = scanOf(context, inputs, options);
      const { batch, length, channels, groups, pieces, stateSize } = scan;
      if (scan.states > MOST_STATES) {
        throw new BackendError(
          `webgpu: selectiveScanBackward takes at most ${MOST_STATES} states a channel, got ${scan.states}; use the CPU backend.`,
        );
      }
      const all = batch * pieces.pieces;
      const size = batch * length * channels;
      const enteringFrom = scan.end;
      const incomingFrom = enteringFrom + all * stateSize;
      const deltasFrom = incomingFrom + all * stateSize;
      const upstreamFrom = deltasFrom + size;
      const work = context.temporary([upstreamFrom + size]);
      const part = (from: number): View => ({ ...work, offset: work.offset + from });

      const copied = { source: states, target: work, from: enteringFrom, size: all * stateSize };
      prepareScan(context, scan, inputs, work, pieces.per === 1 ? copied : undefined);
      if (pieces.per > 1) {
        runPieces(context, scan, inputs, work, part(enteringFrom));
        runPassage(context, scan, work, { local: part(enteringFrom), source: states, byChunks: true });
      }
      const places = { incoming_from: incomingFrom, deltas_from: deltasFrom, upstream_from: upstreamFrom };
      context.run({
        shader: "selective-scan-backward-piece",
        constants: scan.constants,
        buffers: { delta, C, dy, z: dy && z, work },
        writes: ["work"],
        uniforms: { ...scan.channelUniforms, ...places, ...pitchesOf({ delta, dy, z: dy && z }, { C }) },
        groups: scan.channelGroups,
      });
      runPassage(context, scan, work, {
        local: part(incomingFrom),
        ...{ source: dfinalState, target: dinitialState, reversed: true },
      });

      const team = teamOf(scan);
      const { subgroups, subgroupMin } = context.limits;
      const groupSize = channels / groups;
      const stretches = Math.ceil(groupSize / (THREADS / team));
      const pitch = channels * (scan.states + 2);
      const shared = batch * length * groups * scan.states;
      const partial = context.temporary([all * pitch + 2 * stretches * shared]);
      context.run({
        shader: "selective-scan-backward",
        constants: { ...scan.constants, team, wide: subgroups && subgroupMin >= 8 * team },
        buffers: { u, B, C, work, du, ddelta, dz, partial },
        writes: ["du", "ddelta", "dz", "partial"],
        uniforms: {
          ...scan.channelUniforms,
          ...places,
          ...{ stretches, places: all * groups * stretches, batch },
          ...{ entering_from: enteringFrom, partial_pitch: pitch, shared_from: all * pitch },
          ...pitchesOf({ u, du, ddelta, dz }, { B, C }),
        },
        groups: all * groups * stretches,
      });
      if (dz && z) gateBackward(context, "selectiveScanBackward", { z, dy, dz });
      const rows: View = { ...partial, shape: [all, pitch], strides: [pitch, 1] };
      if (dA) sumPartials(context, rows, 0, dA);
      if (dD) sumPartials(context, rows, stateSize, dD);
      if (ddeltaBias) sumPartials(context, rows, stateSize + channels, ddeltaBias);
      const from = (part: number): View => ({
        ...partial,
        offset: partial.offset + all * pitch + part * stretches * shared,
      });
      if (dB) sumParts(context, from(0), stretches, dB);
      if (dC) sumParts(context, from(1), stretches, dC);
    },
  };
};
