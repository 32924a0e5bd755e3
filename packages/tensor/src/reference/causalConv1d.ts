// Layer: reference backend. The causal depthwise convolution of the mixers and its gradient, with state, packing and
// padding, as plain loops. Knows views; knows no Tensor and no tape.

import type { Conv1dInputs, RoutineKernels } from "../routineKernels.js";
import {
  optionalDoubles,
  optionalRows,
  Rows,
  rowLengths,
  sequenceStarts,
  sigmoid,
  siluGradient,
  storeDoubles,
  toDoubles,
} from "./views.js";

/** The inputs as arrays of doubles, and the sizes B, L, C, W. */
class Convolution {
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly width: number;
  readonly x: Rows;
  /** (W, C): one row for each tap. */
  readonly weight: Float64Array;
  readonly bias: Float64Array | undefined;
  /** (B, C, W) */
  readonly initialState: Float64Array | undefined;
  /** (B,): tokens of each row that are no padding. */
  readonly ends: Int32Array;
  /** (B, L): where each token's sequence begins. */
  readonly starts: Int32Array;

  constructor({ x, weight, bias, initialState, seqIdx, lengths }: Conv1dInputs) {
    [this.batch, this.length, this.channels] = x.shape;
    this.width = weight.shape[1];
    this.x = new Rows("causalConv1d: x", x, 1);
    this.weight = transpose(toDoubles("causalConv1d: weight", weight), this.channels, this.width);
    this.bias = optionalDoubles("causalConv1d: bias", bias);
    this.initialState = optionalDoubles("causalConv1d: initialState", initialState);
    this.ends = rowLengths(lengths, this.batch, this.length);
    this.starts = sequenceStarts(seqIdx, this.batch, this.length);
  }

  /** Where the last sequence of a row begins; 0 for a row of padding alone. */
  lastStart(b: number): number {
    return this.ends[b] === 0 ? 0 : this.starts[b * this.length + this.ends[b] - 1];
  }

  /**
   * Writes to `into` (C,) the input at position `s` of row b as a sequence that begins at `start` sees it:
   * x_s, before position 0 the initial state (column W - 1 is position -1), and otherwise zeros.
   */
  inputAt(b: number, s: number, start: number, into: Float64Array): void {
    const { initialState, channels, width } = this;
    if (s >= start) this.x.load(b * this.length + s, into);
    else if (start > 0 || initialState === undefined) into.fill(0);
    else for (let c = 0; c < channels; c++) into[c] = initialState[(b * channels + c) * width + width + s];
  }
}

function transpose(from: Float64Array, rows: number, columns: number): Float64Array {
  const to = new Float64Array(from.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
  return to;
}

/** into += sum_k w_k x_{t-W+1+k}, after into = bias; `input` is scratch (C,). */
function convolve(conv: Convolution, b: number, t: number, input: Float64Array, into: Float64Array): void {
  const { channels, width, weight, bias } = conv;
  const start = conv.starts[b * conv.length + t];
  if (bias === undefined) into.fill(0);
  else into.set(bias);
  for (let k = 0; k < width; k++) {
    conv.inputAt(b, t - width + 1 + k, start, input);
    for (let c = 0; c < channels; c++) into[c] += weight[k * channels + c] * input[c];
  }
}

/**
 * y_t = act(s_t), s_t = bias + sum_{k<W} w_k x_{t-W+1+k}, for each channel by itself (arXiv 2312.00752, section 3.4).
 * x, y (B, L, C); weight (C, W), whose last column multiplies the current token.
 *
 * A tap reaches back as far as its token's sequence: to where `seqIdx` last changed, or from a row's first sequence on
 * into `initialState` (B, C, W), whose column W - 1 is the newest input. Column 0 of it reaches no output.
 * `finalState` (B, C, W) holds the last W inputs of the row's last sequence, with the initial state (or zeros) before
 * them where it is shorter. Tokens from `lengths` on are padding: y is 0 there, and the final state ends before them.
 */
export const causalConv1d: RoutineKernels["causalConv1d"] = (inputs, outputs, { activation }) => {
  const conv = new Convolution(inputs);
  const { batch, length, channels, width } = conv;
  const y = new Rows("causalConv1d: y", outputs.y, 1);
  const finalState = new Float64Array(batch * channels * width);
  const s = new Float64Array(channels);
  const input = new Float64Array(channels);
  for (let b = 0; b < batch; b++) {
    const end = conv.ends[b];
    for (let t = 0; t < end; t++) {
      convolve(conv, b, t, input, s);
      if (activation === "silu") for (let c = 0; c < channels; c++) s[c] *= sigmoid(s[c]);
      y.store(b * length + t, s);
    }
    y.clear(b * length + end, (b + 1) * length);
    const start = conv.lastStart(b);
    for (let k = 0; k < width; k++) {
      conv.inputAt(b, end - width + k, start, input);
      for (let c = 0; c < channels; c++) finalState[(b * channels + c) * width + k] = input[c];
    }
  }
  storeDoubles("causalConv1d: finalState", outputs.finalState, finalState);
};

/**
 * The gradient of {@link causalConv1d}. With ds = dy act'(s): dx_t = sum_k w_k ds_{t+W-1-k}, over the tokens of t's own
 * sequence, dw_k = sum ds_t x_{t-W+1+k}, dbias = sum ds; what flows to positions before 0 is dinitialState, and
 * dfinalState adds to the inputs that it holds. Recomputes s.
 */
export const causalConv1dBackward: RoutineKernels["causalConv1dBackward"] = (inputs, outputs, { activation }) => {
  const conv = new Convolution(inputs);
  const { batch, length, channels, width, weight } = conv;
  const dy = optionalRows("causalConv1dBackward: dy", inputs.dy, 1);
  const dfinal = optionalDoubles("causalConv1dBackward: dfinalState", inputs.dfinalState);
  const dx = optionalRows("causalConv1dBackward: dx", outputs.dx, 1);
  const dweight = new Float64Array(width * channels);
  const dbias = new Float64Array(channels);
  const dinitial = new Float64Array(batch * channels * width);
  const s = new Float64Array(channels);
  const ds = new Float64Array(channels);
  const input = new Float64Array(channels);
  // The gradients of the inputs at positions p .. p + W - 1, position q in row q mod W: going back in time, the oldest
  // of them is complete once its own token is done.
  const window = new Float64Array(width * channels);
  const rowOf = (position: number): number => ((position + width) % width) * channels;

  for (let b = 0; b < batch; b++) {
    const end = conv.ends[b];
    const lastStart = conv.lastStart(b);
    window.fill(0);
    for (let k = 0; dfinal !== undefined && k < width; k++) {
      const position = end - width + k;
      if (position < lastStart && lastStart > 0) continue;
      const at = rowOf(position);
      for (let c = 0; c < channels; c++) window[at + c] = dfinal[(b * channels + c) * width + k];
    }
    for (let t = end - 1; t >= 0; t--) {
      const start = conv.starts[b * length + t];
      if (dy === undefined) ds.fill(0);
      else dy.load(b * length + t, ds);
      if (activation === "silu") {
        convolve(conv, b, t, input, s);
        for (let c = 0; c < channels; c++) ds[c] *= siluGradient(s[c]);
      }
      for (let c = 0; c < channels; c++) dbias[c] += ds[c];
      for (let k = 0; k < width; k++) {
        const position = t - width + 1 + k;
        if (position < start && start > 0) continue;
        conv.inputAt(b, position, start, input);
        const at = rowOf(position);
        for (let c = 0; c < channels; c++) {
          dweight[k * channels + c] += ds[c] * input[c];
          window[at + c] += weight[k * channels + c] * ds[c];
        }
      }
      // Position t is complete; its row of the window becomes that of position t - W.
      dx?.store(b * length + t, window, 0, rowOf(t));
      window.fill(0, rowOf(t), rowOf(t) + channels);
    }
    dx?.clear(b * length + end, (b + 1) * length);
    for (let k = 0; k < width; k++) {
      const at = rowOf(k - width);
      for (let c = 0; c < channels; c++) dinitial[(b * channels + c) * width + k] = window[at + c];
    }
  }
  storeDoubles("causalConv1dBackward: dweight", outputs.dweight, transpose(dweight, width, channels));
  storeDoubles("causalConv1dBackward: dbias", outputs.dbias, dbias);
  storeDoubles("causalConv1dBackward: dinitialState", outputs.dinitialState, dinitial);
};
