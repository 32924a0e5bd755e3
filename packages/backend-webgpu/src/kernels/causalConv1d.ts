// Layer: WebGPU kernels. The causal depthwise convolution and its gradient, with state, packing and padding: which passes run, and
// how channels and tokens are shared out over threads.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Conv1dInputs, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { Dispatch, KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { ENOUGH_GROUPS, pitchOf, rowUses, sumPartials, THREADS, unrolling } from "./rows.js";

type Convolution = Pick<Kernels, "causalConv1d" | "causalConv1dBackward">;

/** A workgroup of the two large passes: items of channels side by side, and pieces of time. */
const ACROSS = 32;
const PIECES = 4;

/** Tokens that a thread takes, forward and backward, multiples of 4: the more, the less is read twice, while there is work for all. */
const TOKENS = [16, 8, 4];
const STEPS = [64, 32, 16];

/** Workgroups of that size that keep a large device busy; in backward threads need more registers, and fewer run at once. */
const ENOUGH_FORWARD = 2 * ENOUGH_GROUPS;
const ENOUGH_BACKWARD = 792;

/** A convolution as the shaders see it: what all its passes have in common. */
interface Passes {
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly constants: NonNullable<Dispatch["constants"]>;
  /** What is read one by one. */
  readonly buffers: Readonly<Record<string, View | undefined>>;
}

function passesOf(context: KernelContext, inputs: Conv1dInputs, activation: "silu" | "none"): Passes {
  const { x, weight, initialState, seqIdx, lengths } = inputs;
  const [batch, length, channels] = x.shape;
  const width = weight.shape[1];
  const reach = seqIdx || lengths ? context.temporary([batch, length + 1], "i32") : undefined;
  if (reach) {
    context.run({
      shader: "causal-conv1d-reach",
      constants: { width },
      buffers: { seqIdx, lengths, reach },
      writes: ["reach"],
      uniforms: { batch, length },
      groups: Math.ceil((batch * (length + 1)) / THREADS),
    });
  }
  return {
    batch,
    length,
    channels,
    constants: { width, older: width - 1, ...unrolling(context), ...(activation === "silu" && { silu_after: true }) },
    buffers: { weight, initialState, reach },
  };
}

/** Taps of causal-conv1d-step.wgsl: a channel's state and weights are a vector each. */
const STEP_WIDTH = 4;

/** Threads of a workgroup of it: few, as there are few channels to share out. */
const STEP_THREADS = 64;

function isStep({ x, weight, initialState, seqIdx, lengths }: Conv1dInputs, finalState: View): boolean {
  if (x.shape[1] !== 1 || weight.shape[1] !== STEP_WIDTH || seqIdx || lengths) return false;
  return [weight, finalState, ...(initialState ? [initialState] : [])].every(({ offset }) => offset % 4 === 0);
}

/** One token of each row. */
function step(
  context: KernelContext,
  { x, weight, bias, initialState }: Conv1dInputs,
  { y, finalState }: { readonly y: View; readonly finalState: View },
  activation: "silu" | "none",
): void {
  const [batch, , channels] = x.shape;
  context.run({
    shader: "causal-conv1d-step",
    constants: { silu_after: activation === "silu" },
    buffers: {
      ...{ x, bias, y, weight: { view: weight, vec: 4 }, finalState: { view: finalState, vec: 4 } },
      ...(initialState && { initialState: { view: initialState, vec: 4 } }),
    },
    writes: ["y", "finalState"],
    uniforms: {
      ...{ items: batch * channels, channels },
      ...{ x_pitch: pitchOf("causalConv1d: x", x), y_pitch: pitchOf("causalConv1d: y", y) },
    },
    groups: Math.ceil((batch * channels) / STEP_THREADS),
  });
}

/** The first choice that makes enough workgroups, or the last. */
function firstEnough(choices: readonly number[], groupsOf: (choice: number) => number, enough: number): number {
  return choices.find((choice) => groupsOf(choice) >= enough) ?? choices[choices.length - 1];
}

export const causalConv1dKernels = (context: KernelContext): Required<Convolution> => {
  const { copy, fill } = copyKernels(context);

  /** out = from, or zeros. */
  const set = (out: View | undefined, from?: View) => {
    if (out === undefined || sizeOf(out.shape) === 0) return;
    if (from) copy(from, out);
    else fill(out, 0);
  };

  return {
    causalConv1d(inputs, { y, finalState }, { activation }) {
      const { x, bias, initialState } = inputs;
      if (sizeOf(x.shape) === 0) {
        set(finalState, initialState);
        return;
      }
      if (isStep(inputs, finalState)) {
        step(context, inputs, { y, finalState }, activation);
        return;
      }
      const { batch, length, channels, constants, buffers } = passesOf(context, inputs, activation);
      const rows = rowUses("causalConv1d", channels, { x, y }, { bias });
      const columns = channels / rows.unit;
      const columnTiles = Math.ceil(columns / ACROSS);
      const piecesOf = (tokens: number) => Math.ceil(length / tokens);
      const groupsOf = (tokens: number) => Math.ceil((batch * piecesOf(tokens)) / PIECES) * columnTiles;
      const tokens = firstEnough(TOKENS, groupsOf, ENOUGH_FORWARD);
      const pieces = piecesOf(tokens);
      context.run({
        shader: "causal-conv1d",
        constants: { ...constants, fours: rows.fours, tokens },
        buffers: { ...rows.buffers, ...buffers, finalState },
        writes: ["y", "finalState"],
        uniforms: { ...rows.pitches, batch, length, columns, column_tiles: columnTiles, pieces },
        groups: groupsOf(tokens),
      });
    },

    causalConv1dBackward(inputs, { dx, dweight, dbias, dinitialState }, { activation }) {
      const { x, weight, bias, dy, dfinalState } = inputs;
      if (sizeOf(x.shape) === 0) {
        for (const output of [dx, dweight, dbias]) set(output);
        set(dinitialState, dfinalState);
        return;
      }
      const { batch, length, channels, constants, buffers } = passesOf(context, inputs, activation);
      const width = weight.shape[1];

      if (dy === undefined) {
        for (const output of [dx, dweight, dbias]) set(output);
      } else if (dx || dweight || dbias) {
        const rows = rowUses("causalConv1dBackward", channels, { x, dy, dx }, { bias });
        const columns = channels / rows.unit;
        const columnTiles = Math.ceil(columns / ACROSS);
        // A run is at least as long as what is read beyond it.
        const possible = [...STEPS.filter((steps) => steps >= 2 * width), ...(2 * width > STEPS[0] ? [8 * width] : [])];
        const piecesOf = (steps: number) => Math.ceil(length / (steps - width + 1));
        const blocksOf = (steps: number) => Math.ceil((batch * piecesOf(steps)) / PIECES);
        const steps = firstEnough(possible, (choice) => blocksOf(choice) * columnTiles, ENOUGH_BACKWARD);
        const pieces = piecesOf(steps);
        const blocks = blocksOf(steps);
        const partial = dweight || dbias ? context.temporary([blocks, channels * (width + 1)]) : undefined;
        context.run({
          shader: "causal-conv1d-backward",
          constants: { ...constants, fours: rows.fours, team: ACROSS, steps },
          buffers: { ...rows.buffers, ...buffers, partial },
          writes: [dx && "dx", partial && "partial"].filter((name) => name !== undefined),
          uniforms: {
            ...rows.pitches,
            batch,
            length,
            columns,
            column_tiles: columnTiles,
            pieces,
            partial_pitch: channels * (width + 1),
          },
          groups: blocks * columnTiles,
        });
        if (partial && dweight) sumPartials(context, partial, 0, dweight);
        if (partial && dbias) sumPartials(context, partial, channels * width, dbias);
      }

      const pitches = { x_pitch: pitchOf("causalConv1dBackward: x", x), ...(dy && { dy_pitch: pitchOf("dy", dy) }) };
      if (dinitialState && sizeOf(dinitialState.shape) > 0) {
        context.run({
          shader: "causal-conv1d-initial",
          constants,
          buffers: { x, bias, ...buffers, dy, dfinalState, dinitialState },
          writes: ["dinitialState"],
          uniforms: { ...pitches, batch, length, columns: channels },
          groups: Math.ceil((batch * channels) / THREADS),
        });
      }
      if (dx && dfinalState) {
        context.run({
          shader: "causal-conv1d-final",
          constants: { width },
          buffers: { reach: buffers.reach, dfinalState, dx },
          writes: ["dx"],
          uniforms: { dx_pitch: pitchOf("causalConv1dBackward: dx", dx), batch, length, channels },
          groups: Math.ceil((batch * channels) / THREADS),
        });
      }
    },
  };
};
