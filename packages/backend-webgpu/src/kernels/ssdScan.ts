// Layer: WebGPU kernels. The scan of Mamba-2 (SSD) in matrix products: which passes run over which pieces of time, and what they hand
// on to each other.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Kernels, type SsdInputs, type SsdOptions, sizeOf, type View } from "@diffmamba/tensor";
import { type Dispatch, f32, type KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { joiningConstants, pitchOf, THREADS, teamFor, unrolling } from "./rows.js";
import { PIECE_TOKENS, type Pieces, piecesOf } from "./scanPieces.js";

/** Rows, columns and threads of a tile of lib/ssd-tile.wgsl. */
const TILE = 64;

/** Heads of a workgroup of ssd-decays.wgsl. */
const DECAY_HEADS = 16;

/** Numbers that lib/ssd-decays.wgsl keeps of a unit, and of a matrix of a group. */
const UNIT_SIZE = 388;
const MATRIX_SIZE = PIECE_TOKENS * PIECE_TOKENS;

/** Buffers of ssd-step.wgsl, more than every device can bind. */
const STEP_BUFFERS = 10;

/** The largest f32: a limit of dt beyond it limits nothing. */
const GREATEST = 3.4028234663852886e38;

/** How the shaders see views: rows of all groups or heads, and states as they lie, all in fours or all one by one. */
export class Seen {
  readonly fours: boolean;
  readonly unit: 1 | 4;

  /** What all shaders of tiles are compiled with. */
  readonly constants: { readonly fours: boolean; readonly unrolled: boolean };

  constructor(
    context: KernelContext,
    sizes: readonly number[],
    rows: Readonly<Record<string, View | undefined>>,
    whole: Readonly<Record<string, View | undefined>>,
  ) {
    const pitches = Object.entries(rows).flatMap(([name, view]) => (view ? [pitchOf(`ssdScan: ${name}`, view)] : []));
    const offsets = [...Object.values(rows), ...Object.values(whole)].map((view) => view?.offset ?? 0);
    this.fours = [...sizes, ...pitches, ...offsets].every((n) => n % 4 === 0);
    this.unit = this.fours ? 4 : 1;
    this.constants = { fours: this.fours, ...unrolling(context) };
  }

  buffers(views: Readonly<Record<string, View | undefined>>): Dispatch["buffers"] {
    if (!this.fours) return views;
    return Object.fromEntries(Object.entries(views).map(([name, view]) => [name, view && { view, vec: 4 as const }]));
  }

  /** u.<name>_pitch of each. */
  pitches(views: Readonly<Record<string, View | undefined>>): Record<string, number> {
    return Object.fromEntries(
      Object.entries(views).flatMap(([name, view]) =>
        view ? [[`${name}_pitch`, pitchOf(name, view) / this.unit]] : [],
      ),
    );
  }
}

/** A view as rows of its last two axes: (B, L, H, P) as (B, L, H * P). */
export function asRows(view: View): View;
export function asRows(view: View | undefined): View | undefined;
export function asRows(view: View | undefined): View | undefined {
  if (view === undefined) return undefined;
  const [batch, length, a, b] = view.shape;
  return { ...view, shape: [batch, length, a * b], strides: [view.strides[0], view.strides[1], 1] };
}

/** States (…, P, N) as rows of N. */
export function asStates(view: View): View;
export function asStates(view: View | undefined): View | undefined;
export function asStates(view: View | undefined): View | undefined {
  if (view === undefined) return undefined;
  const states = view.shape[view.shape.length - 1];
  return { ...view, shape: [sizeOf(view.shape) / states, states], strides: [states, 1] };
}

/** A scan as its passes see it. */
export interface Ssd {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headSize: number;
  readonly groups: number;
  readonly states: number;
  readonly pieces: Pieces;
  /** Pieces of all rows, and heads in them. */
  readonly all: number;
  readonly units: number;
  readonly tilesP: number;
  readonly tilesN: number;
  readonly productsFrom: number;
  /** What all passes are told. */
  readonly uniforms: Readonly<Record<string, number>>;
}

export function ssdOf({ x, B }: SsdInputs, { chunkSize }: SsdOptions): Ssd {
  const [batch, length, heads, headSize] = x.shape;
  const [groups, states] = B.shape.slice(2);
  const pieces = piecesOf(length, chunkSize);
  const all = batch * pieces.pieces;
  const units = all * heads;
  const [tilesP, tilesN] = [Math.ceil(headSize / TILE), Math.ceil(states / TILE)];
  return {
    ...{ batch, length, heads, headSize, groups, states, pieces, all, units, tilesP, tilesN },
    productsFrom: units * UNIT_SIZE,
    uniforms: {
      ...pieces.uniforms,
      ...{ batch, heads, states, groups, units, head_size: headSize, group_heads: heads / groups },
      ...{ tiles_p: tilesP, tiles_n: tilesN, products_from: (units * UNIT_SIZE) / 4 },
    },
  };
}

/** The limits of dt, as the shaders take them. */
function limitsOf({ dtLimit: [low, high] }: SsdOptions) {
  return { low: f32(Math.max(low, -GREATEST)), high: f32(Math.min(high, GREATEST)) };
}

/** Decays and C B^T: what lib/ssd-decays.wgsl describes; with `slopes`, which backward needs. */
export function makePairs(
  context: KernelContext,
  ssd: Ssd,
  inputs: SsdInputs,
  options: SsdOptions,
  seen: Seen,
  slopes: boolean,
): View {
  const { all, heads, groups, productsFrom, uniforms } = ssd;
  const { dt, A, dtBias, seqIdx, lengths } = inputs;
  const pairs = context.temporary([productsFrom + all * groups * MATRIX_SIZE]);
  const headTiles = Math.ceil(heads / DECAY_HEADS);
  context.run({
    shader: "ssd-decays",
    constants: { softplus_dt: options.dtSoftplus, slopes },
    buffers: { dt, A, dtBias, seqIdx, lengths, pairs },
    writes: ["pairs"],
    uniforms: {
      ...uniforms,
      ...{ head_tiles: headTiles, dt_pitch: pitchOf("ssdScan: dt", dt) },
      ...limitsOf(options),
    },
    groups: all * headTiles,
  });
  const rows = { B: asRows(inputs.B), C: asRows(inputs.C) };
  context.run({
    shader: "ssd-products",
    constants: { ...seen.constants },
    buffers: { ...seen.buffers(rows), pairs: { view: pairs, vec: 4 } },
    writes: ["pairs"],
    uniforms: { ...uniforms, ...seen.pitches(rows) },
    groups: all * groups,
  });
  return pairs;
}

/** `out` (units, P, N) = what each piece adds to states or, `backward`, to their gradients. */
export function sumOuter(
  context: KernelContext,
  { units, tilesP, tilesN, uniforms }: Ssd,
  { x, B, out, pairs }: { readonly x: View; readonly B: View; readonly out: View; readonly pairs: View },
  seen: Seen,
  backward: boolean,
): void {
  const rows = { x: asRows(x), B: asRows(B), out: asStates(out) };
  context.run({
    shader: "ssd-outer",
    constants: { ...seen.constants, backward, out_written: true },
    buffers: { ...seen.buffers(rows), pairs: { view: pairs, vec: 4 } },
    writes: ["out"],
    uniforms: { ...uniforms, ...seen.pitches(rows) },
    groups: units * tilesP * tilesN,
  });
}

/** How states go through pieces: as in ssd-pass.wgsl. */
interface Passage {
  readonly local: View;
  readonly source?: View | undefined;
  readonly target?: View | undefined;
  readonly saved?: View | undefined;
  readonly reversed?: boolean;
  /** Each chunk by itself. */
  readonly byChunks?: boolean;
}

export function passStates(context: KernelContext, ssd: Ssd, pairs: View, passage: Passage, seen: Seen): void {
  const { batch, heads, headSize, states, pieces, uniforms } = ssd;
  const { reversed, byChunks, ...views } = passage;
  const runs = byChunks ? pieces.chunks : 1;
  const items = (headSize * states) / seen.unit;
  context.run({
    shader: "ssd-pass",
    constants: { ...seen.constants, reversed },
    buffers: { ...seen.buffers({ ...views }), pairs: { view: pairs, vec: 4 } },
    writes: ["local", "target", "saved"],
    uniforms: { ...uniforms, items, runs, chunks: pieces.chunks, run_pieces: byChunks ? pieces.per : pieces.pieces },
    groups: Math.ceil((batch * runs * heads * items) / THREADS),
  });
}

/** y from the states that enter the pieces, times silu(z) where there is a z. */
export function makeOutput(
  context: KernelContext,
  { units, tilesP, uniforms }: Ssd,
  {
    x,
    C,
    S,
    D,
    z,
    y,
    pairs,
  }: {
    readonly x: View;
    readonly C: View;
    readonly S: View;
    readonly D?: View | undefined;
    readonly z?: View | undefined;
    readonly y: View;
    readonly pairs: View;
  },
  seen: Seen,
): void {
  const rows = { x: asRows(x), C: asRows(C), S: asStates(S), z: asRows(z), y: asRows(y) };
  context.run({
    shader: "ssd-output",
    constants: { ...seen.constants, y_written: true, channel_skip: D?.shape.length === 2 },
    buffers: { ...seen.buffers(rows), D, pairs: { view: pairs, vec: 4 } },
    writes: ["y"],
    uniforms: { ...uniforms, ...seen.pitches(rows) },
    groups: units * tilesP,
  });
}

type Forward = Required<Pick<Kernels, "ssdScan">>;

export const ssdScanKernels = (context: KernelContext): Forward => {
  const { copy, fill } = copyKernels(context);

  /** A token of every row, from state to state. */
  function step(ssd: Ssd, inputs: SsdInputs, options: SsdOptions, y: View, finalState: View): void {
    const { x, dt, A, B, C, D, dtBias, initialState } = inputs;
    const { units, headSize, states, uniforms } = ssd;
    const rows = { B: asRows(B), C: asRows(C) };
    const seen = new Seen(context, [states], rows, { initialState, finalState });
    const items = states / seen.unit;
    const { team } = teamFor(items, 4);
    const constants = { fours: seen.fours, team, softplus_dt: options.dtSoftplus, channel_skip: D?.shape.length === 2 };
    context.run({
      shader: "ssd-step",
      constants: { ...joiningConstants(context), ...constants },
      buffers: { x, dt, A, D, dtBias, y, ...seen.buffers({ ...rows, source: initialState, target: finalState }) },
      writes: ["y", "target"],
      uniforms: {
        ...{ ...uniforms, items, ...seen.pitches(rows), ...limitsOf(options) },
        ...{ x_pitch: pitchOf("ssdScan: x", asRows(x)), y_pitch: pitchOf("ssdScan: y", asRows(y)) },
        dt_pitch: pitchOf("ssdScan: dt", dt),
      },
      groups: Math.ceil((units * headSize) / (THREADS / team)),
    });
  }

  return {
    ssdScan(inputs, { y, finalState, states }, options) {
      const { x, B, C, D, z, initialState } = inputs;
      if (sizeOf(x.shape) === 0 || sizeOf(finalState.shape) === 0) {
        if (sizeOf(finalState.shape) > 0) {
          if (initialState) copy(initialState, finalState);
          else fill(finalState, 0);
        }
        if (sizeOf(y.shape) > 0) fill(y, 0);
        return;
      }
      const ssd = ssdOf(inputs, options);
      if (ssd.length === 1 && !states && !z && !inputs.lengths && context.limits.buffers >= STEP_BUFFERS) {
        step(ssd, inputs, options, y, finalState);
        return;
      }
      const { headSize, units, pieces } = ssd;
      const rows = { x: asRows(x), B: asRows(B), C: asRows(C), z: asRows(z), y: asRows(y) };
      const seen = new Seen(context, [headSize, ssd.states], rows, { initialState, finalState, states });
      const pairs = makePairs(context, ssd, inputs, options, seen, false);
      // Where a piece is a chunk, what is saved is what enters the pieces.
      const S = states && pieces.per === 1 ? states : context.temporary([units, headSize, ssd.states]);
      sumOuter(context, ssd, { x, B, out: S, pairs }, seen, false);
      const saved = S === states ? undefined : states;
      passStates(context, ssd, pairs, { local: S, source: initialState, target: finalState, saved }, seen);
      makeOutput(context, ssd, { x, C, S, D, z, y, pairs }, seen);
    },
  };
};
