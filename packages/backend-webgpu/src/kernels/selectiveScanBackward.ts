// Layer: WebGPU kernels. The gradient of the selective scan: which passes run over which pieces of time, and what they hand on.
// Knows layouts and the shaders' parameters. Knows no formula.

import { BackendError, type Kernels, rowPitch, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { joiningConstants, rowUses, sumPartials, THREADS } from "./rows.js";
import { pitchesOf, prepareScan, runPassage, runPieces, type Scan, scanOf } from "./selectiveScan.js";

/** Eight channels share out sums over them: so many states, in fours, leave room for eight in a workgroup. */
const MOST_STATES = 128;

/** Threads that take a channel together, four states each. */
function teamOf({ quads }: Scan): number {
  return 2 ** Math.ceil(Math.log2(quads));
}

/** out (B, L, G, N) = the sum of `count` parts that follow one another in `parts` from element `from` on. */
function sumParts(context: KernelContext, scan: Scan, parts: View, from: number, count: number, out: View): void {
  const { batch, length, groups, states } = scan;
  const columns = groups * states;
  context.run({
    shader: "matmul-sum-splits",
    buffers: { parts: { ...parts, offset: parts.offset + from }, out },
    writes: ["out"],
    uniforms: {
      ...{ batch: 1, rows: batch * length, columns, splits: count, parts_pitch: columns },
      ...{ out_batch: 0, out_row: rowPitch(out, 2) ?? columns, out_column: 1 },
    },
    groups: Math.ceil((batch * length * columns) / THREADS),
  });
}

/** dz, which holds y from before the gate, becomes the gradient of the gate; and `inner`, that of y. */
export function runGate(
  context: KernelContext,
  op: string,
  [rows, columns]: readonly [number, number],
  {
    z,
    dy,
    dz,
    inner,
  }: {
    readonly z: View;
    readonly dy?: View | undefined;
    readonly dz?: View | undefined;
    readonly inner?: View | undefined;
  },
): void {
  const { fours, unit, buffers, pitches } = rowUses(op, columns, { z, dy, dz }, { inner });
  context.run({
    shader: "gate-backward",
    constants: { fours },
    buffers,
    writes: ["dz", "inner"],
    uniforms: { ...pitches, rows, columns: columns / unit },
    groups: Math.ceil((rows * columns) / unit / THREADS),
  });
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
      const scan = scanOf(inputs, options);
      const { batch, length, channels, groups, quads, pieces, stateSize } = scan;
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
      const groupSize = channels / groups;
      const stretches = Math.ceil(groupSize / (THREADS / team));
      const pitch = channels * (scan.states + 2);
      const shared = batch * length * groups * scan.states;
      const partial = context.temporary([all * pitch + 2 * stretches * shared]);
      context.run({
        shader: "selective-scan-backward",
        constants: { ...joiningConstants(context), ...scan.constants, quads, team },
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
      if (dz && z) runGate(context, "selectiveScanBackward", [batch * length, channels], { z, dy, dz });
      const rows: View = { ...partial, shape: [all, pitch], strides: [pitch, 1] };
      if (dA) sumPartials(context, rows, 0, dA);
      if (dD) sumPartials(context, rows, stateSize, dD);
      if (ddeltaBias) sumPartials(context, rows, stateSize + channels, ddeltaBias);
      if (dB) sumParts(context, scan, partial, all * pitch, stretches, dB);
      if (dC) sumParts(context, scan, partial, all * pitch + stretches * shared, stretches, dC);
    },
  };
};
