// Layer: WebGPU kernels. The selective scan (S6): which passes run over which pieces of time, and what they hand on to each other.
// Knows layouts and the shaders' parameters. Knows no formula.

import {
  type Kernels,
  type SelectiveScanInputs,
  type SelectiveScanOptions,
  sizeOf,
  type View,
} from "@diffmamba/tensor";
import type { BufferUse, Dispatch, KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { pitchOf, THREADS, unrolling } from "./rows.js";
import { PIECE_TOKENS, type Pieces, piecesOf } from "./scanPieces.js";

/** Threads of the passes that give each a channel. */
const CHANNEL_THREADS = 128;

/** Vectors of B, and as many of C, that such a workgroup keeps at hand. */
const STAGED = 256;

/** A scan as its passes see it. */
export interface Scan {
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly states: number;
  readonly groups: number;
  readonly quads: number;
  readonly pieces: Pieces;
  readonly marked: boolean;
  /** Elements of a state of all channels. */
  readonly stateSize: number;
  /** Where the parts of `work` begin that every scan has, and where there is room for more. */
  readonly marksFrom: number;
  readonly sumsFrom: number;
  readonly end: number;
  readonly constants: NonNullable<Dispatch["constants"]>;
  /** Of the passes that give each thread a channel. */
  readonly channelUniforms: Readonly<Record<string, number>>;
  readonly channelGroups: number;
}

export function scanOf(
  context: KernelContext,
  { u, A, B, seqIdx, lengths }: SelectiveScanInputs,
  options: SelectiveScanOptions,
): Scan {
  const [batch, length, channels] = u.shape;
  const states = A.shape[1];
  const groups = B.shape[2];
  const quads = Math.ceil(states / 4);
  const pieces = piecesOf(length, options.chunkSize);
  const marked = seqIdx !== undefined || lengths !== undefined;
  const marksFrom = channels * (4 * quads + 2);
  const sumsFrom = marksFrom + (marked ? batch * length : 0);
  const groupSize = channels / groups;
  const stretches = Math.ceil(groupSize / CHANNEL_THREADS);
  const places = batch * pieces.pieces * groups * stretches;
  return {
    ...{ batch, length, channels, states, groups, quads, pieces, marked, marksFrom, sumsFrom },
    stateSize: channels * states,
    end: sumsFrom + batch * pieces.pieces * channels,
    constants: {
      ...unrolling(context),
      quads,
      marked,
      softplus_delta: options.deltaSoftplus,
      staged: Math.max(1, Math.min(PIECE_TOKENS, Math.floor(STAGED / quads))),
    },
    channelUniforms: {
      ...pieces.uniforms,
      ...{ channels, states, groups, stretches, places, group_size: groupSize },
      ...{ marks_from: marksFrom, sums_from: sumsFrom },
    },
    channelGroups: places,
  };
}

/** u.<name>_pitch of rows of channels, and of rows of all groups' states. */
export function pitchesOf(rows: Readonly<Record<string, View | undefined>>, shared: Readonly<Record<string, View>>) {
  const pitches: Record<string, number> = {};
  for (const [name, view] of Object.entries(rows)) {
    if (view) pitches[`${name}_pitch`] = pitchOf(`selectiveScan: ${name}`, view);
  }
  for (const [name, view] of Object.entries(shared)) {
    const [batch, length, groups, states] = view.shape;
    const rows = { ...view, shape: [batch, length, groups * states], strides: [...view.strides.slice(0, 2), 1] };
    pitches[`${name}_pitch`] = pitchOf(`selectiveScan: ${name}`, rows);
  }
  return pitches;
}

/** States that `prepare` copies, or sets to zeros: elements of a buffer from one on. */
interface StateCopy {
  readonly source?: View | undefined;
  readonly target: View;
  readonly from: number;
  readonly size: number;
}

/** The table and the marks, into `work`; and states, where there are some to begin from. */
export function prepareScan(
  context: KernelContext,
  scan: Scan,
  inputs: SelectiveScanInputs,
  work: View,
  copy?: StateCopy,
): void {
  const { batch, length, channels, states, quads, marked, marksFrom } = scan;
  const { A, D, deltaBias, seqIdx, lengths } = inputs;
  const items = Math.max(marksFrom, marked ? batch * length : 0, copy?.size ?? 0);
  context.run({
    shader: "selective-scan-prepare",
    constants: { quads, marked },
    buffers: { A, D, deltaBias, seqIdx, lengths, work, source: copy?.source, target: copy?.target },
    writes: ["work", "target"],
    uniforms: {
      ...{ batch, length, channels, states, marks_from: marksFrom },
      ...{ copied: copy?.size ?? 0, target_from: copy?.from ?? 0 },
    },
    groups: Math.ceil(items / THREADS),
  });
}

/** What each piece makes of a state of zeros, into `local` (B, pieces, D, N). */
export function runPieces(
  context: KernelContext,
  scan: Scan,
  { u, delta, B }: SelectiveScanInputs,
  work: View,
  local: BufferUse,
): void {
  context.run({
    shader: "selective-scan-piece",
    constants: { ...scan.constants, local_written: true, fours: "view" in local },
    buffers: { u, delta, B, work, local },
    writes: ["work", "local"],
    uniforms: { ...scan.channelUniforms, ...pitchesOf({ u, delta }, { B }) },
    groups: scan.channelGroups,
  });
}

/** How states go through pieces: as in selective-scan-pass.wgsl. */
interface Passage {
  readonly local: BufferUse;
  readonly source?: BufferUse | undefined;
  readonly target?: BufferUse | undefined;
  readonly saved?: BufferUse | undefined;
  readonly reversed?: boolean;
  /** Each chunk by itself. */
  readonly byChunks?: boolean;
}

export function runPassage(context: KernelContext, scan: Scan, work: View, passage: Passage): void {
  const { batch, channels, states, quads, pieces, marksFrom, sumsFrom } = scan;
  const { local, source, target, saved, reversed, byChunks } = passage;
  const runs = byChunks ? pieces.chunks : 1;
  context.run({
    shader: "selective-scan-pass",
    constants: {
      ...{ quads, reversed, fours: "view" in local },
      ...{ local_written: true, target_written: true, saved_written: true },
    },
    buffers: { work, local, source, target, saved },
    writes: ["local", "target", "saved"],
    uniforms: {
      ...{ batch, channels, states, runs, marks_from: marksFrom, sums_from: sumsFrom },
      ...{
        run_pieces: byChunks ? pieces.per : pieces.pieces,
        pieces: pieces.pieces,
        per: pieces.per,
        chunks: pieces.chunks,
      },
    },
    groups: Math.ceil((batch * runs * channels * quads) / THREADS),
  });
}

type Forward = Required<Pick<Kernels, "selectiveScan">>;

export const selectiveScanKernels = (context: KernelContext): Forward => {
  const { copy, fill } = copyKernels(context);
  return {
    selectiveScan(inputs, { y, finalState, states }, options) {
      const { u, delta, B, C, z, initialState } = inputs;
      if (sizeOf(u.shape) === 0 || sizeOf(inputs.A.shape) === 0) {
        if (sizeOf(finalState.shape) > 0) {
          if (initialState) copy(initialState, finalState);
          else fill(finalState, 0);
        }
        if (sizeOf(y.shape) > 0) fill(y, 0);
        return;
      }
      const scan = scanOf(context, inputs, options);
      const { pieces, batch, stateSize } = scan;
      const work = context.temporary([scan.end]);
      const offsets = [initialState, finalState, states].map((view) => view?.offset ?? 0);
      const fours = scan.states % 4 === 0 && offsets.every((offset) => offset % 4 === 0);
      const asStates = (view: View | undefined) => (view && fours ? { view, vec: 4 as const } : view);
      const whole = pieces.pieces === 1;

      let entering: View;
      if (whole) {
        entering = finalState;
        prepareScan(context, scan, inputs, work, {
          source: initialState,
          target: finalState,
          from: 0,
          size: batch * stateSize,
        });
        if (states) copy(finalState, { ...states, shape: finalState.shape, strides: finalState.strides });
      } else {
        // Where a piece is a chunk, what is saved is what enters the pieces.
        entering =
          states && pieces.per === 1 ? states : context.temporary([batch, pieces.pieces, ...finalState.shape.slice(1)]);
        const local = asStates(entering) as BufferUse;
        prepareScan(context, scan, inputs, work);
        runPieces(context, scan, inputs, work, local);
        runPassage(context, scan, work, {
          local,
          source: asStates(initialState),
          target: asStates(finalState),
          saved: entering === states ? undefined : asStates(states),
        });
      }
      context.run({
        shader: "selective-scan",
        constants: { ...scan.constants, whole, entering_written: whole, fours },
        buffers: { u, delta, B, C, z, work, entering: asStates(entering), y },
        writes: whole ? ["y", "entering"] : ["y"],
        uniforms: { ...scan.channelUniforms, ...pitchesOf({ u, delta, z, y }, { B, C }) },
        groups: scan.channelGroups,
      });
    },
  };
};
