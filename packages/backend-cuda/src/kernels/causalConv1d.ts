// Layer: CUDA kernels. The causal depthwise convolution and its gradient: which passes run, and how channels and tokens are shared out.
// Knows layouts and native/kernels/causal_conv1d.cu. Knows no formula.

import { BackendError, bytesPerElement, type Conv1dInputs, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import { type Argument, i32, i64, isAligned, type KernelContext, pointer } from "../context.js";
import { pitchOf, sumParts, vectorFor } from "./rows.js";

/** Threads of a block along channels and along time. */
const ACROSS = 32;
const ALONG = 4;
/** Tokens of a thread. */
const TOKENS_FORWARD = 16;
const TOKENS_BACKWARD = 32;
/** The widths that have kernels with the filter in registers, and the one that has them with vectors. */
const MOST_WIDTH = 4;
const VECTOR_WIDTH = 4;

const optionalPitch = (name: string, view: View | undefined): number => (view ? pitchOf(name, view) : 0);

/** The structure Conv. */
function convArguments(
  inputs: Conv1dInputs,
  y: View | undefined,
  dx: View | undefined,
  silu: boolean,
  fours = false,
  early = false,
): Argument[] {
  const { x, weight } = inputs;
  const [batch, length, channels] = x.shape;
  return [
    i32(batch),
    i32(length),
    i32(channels),
    i32(weight.shape[1]),
    i64(pitchOf("causalConv1d: x", x)),
    i64(optionalPitch("causalConv1d: y", y)),
    i64(optionalPitch("causalConv1dBackward: dx", dx)),
    i32(silu),
    i32(fours),
    i32(early),
    i32(0),
  ];
}

/** A contiguous view as one row. */
const flat = (view: View): View => ({ ...view, shape: [sizeOf(view.shape)], strides: [1] });

/** The widest vectors of channels that a kernel has for these views. */
function vectorOf(width: number, most: number, channels: number, views: readonly (View | undefined)[]): number {
  return width === VECTOR_WIDTH ? vectorFor(most, channels, views) : 1;
}

export const convKernels = (context: KernelContext): Pick<Kernels, "causalConv1d" | "causalConv1dBackward"> => ({
  causalConv1d: (inputs, { y, finalState }, { activation }) => {
    const { x, weight, bias, initialState, seqIdx, lengths } = inputs;
    const [batch, length, channels] = x.shape;
    const width = weight.shape[1];
    const inFours = (view: View | undefined) => view === undefined || isAligned(view, 4 * bytesPerElement[view.dtype]);
    const fours = width === 4 && [weight, initialState, finalState].every(inFours);
    const conv = (early = false) => convArguments(inputs, y, undefined, activation === "silu", fours, early);
    const wholeRows: [number, number] = [Math.ceil(channels / 128), batch];
    if (length === 1 && seqIdx === undefined && lengths === undefined) {
      const early = [weight, bias, initialState].every((view) => view === undefined || context.isUntouched(view));
      context.launch({
        kernel: `conv_step_${x.dtype}`,
        grid: wholeRows,
        block: 128,
        overlap: true,
        args: [...[x, weight, bias, initialState, y, finalState].map(pointer), ...conv(early)],
      });
      return;
    }
    const given = [x, weight, bias, initialState, seqIdx, lengths, y].map(pointer);
    if (width <= MOST_WIDTH) {
      const vector = vectorOf(width, x.dtype === "f32" ? 4 : 8, channels, [x, y, bias, flat(weight)]);
      context.launch({
        kernel: `conv_forward_${x.dtype}_w${width}_v${vector}`,
        grid: [Math.ceil(channels / vector / ACROSS), Math.ceil(length / TOKENS_FORWARD / ALONG), batch],
        block: [ACROSS, ALONG],
        args: [...given, ...conv()],
      });
    } else {
      context.launch({
        kernel: `conv_forward_${x.dtype}_any`,
        grid: [Math.ceil(channels / 128), length, batch],
        block: 128,
        args: [...given, ...conv()],
      });
    }
    context.launch({
      kernel: `conv_state_${x.dtype}`,
      grid: wholeRows,
      block: 128,
      args: [...[x, initialState, seqIdx, lengths, finalState].map(pointer), ...conv()],
    });
  },
  causalConv1dBackward: (inputs, { dx, dweight, dbias, dinitialState }, { activation }) => {
    const { x, weight, bias, initialState, seqIdx, lengths, dy, dfinalState } = inputs;
    const [batch, length, channels] = x.shape;
    const width = weight.shape[1];
    if (width > MOST_WIDTH) {
      throw new BackendError(
        `cuda: causalConv1dBackward: a filter of width ${width}; widths up to ${MOST_WIDTH} have a gradient.`,
      );
    }
    const conv = convArguments(inputs, undefined, dx, activation === "silu");
    const dyPitch = i64(optionalPitch("causalConv1dBackward: dy", dy));
    const given = [x, weight, bias, initialState, seqIdx, lengths, dy, dfinalState];
    const pieces = Math.ceil(length / TOKENS_BACKWARD / ALONG);
    const parts = dweight || dbias ? context.temporary([batch * pieces, channels * (width + 1)], "f32") : undefined;
    if (dx || parts) {
      const vector = vectorOf(width, 4, channels, [x, dy, dx, bias, flat(weight)]);
      context.launch({
        kernel: `conv_backward_${x.dtype}_w${width}_v${vector}`,
        grid: [Math.ceil(channels / vector / ACROSS), pieces, batch],
        block: [ACROSS, ALONG],
        shared: 4 * ACROSS * ALONG * vector * (width + 1),
        args: [...[...given, dx, parts].map(pointer), dyPitch, ...conv],
      });
    }
    if (parts && dweight) sumParts(context, parts, 0, dweight);
    if (parts && dbias) sumParts(context, parts, channels * width, dbias);
    if (dinitialState) {
      context.launch({
        kernel: `conv_state_backward_${x.dtype}`,
        grid: [Math.ceil(channels / 128), batch],
        block: 128,
        args: [...[...given, dinitialState].map(pointer), dyPitch, ...conv],
      });
    }
  },
});
