// Layer: reference backend. The Mamba-2 scan (SSD) in chunks, and the class that holds one chunk of it for the forward
// and the backward pass. Plain loops. Knows views; knows no Tensor and no tape.

import type { RoutineKernels, SsdInputs, SsdOptions } from "../routineKernels.js";
import { addScaled, dot } from "./vector.js";
import {
  optionalDoubles,
  optionalRows,
  Rows,
  rowLengths,
  sequenceStarts,
  silu,
  softplus,
  storeDoubles,
  toDoubles,
} from "./views.js";

/**
 * One chunk of one row, loaded step by step: `loadChunk` sets the tokens, `loadGroup` B, C and their products,
 * `loadHead` x, dt and the decays. Token i of the chunk is token `first + i` of row b; all arrays are doubles.
 */
export class SsdChunk {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly dState: number;
  readonly chunks: number;
  readonly xRows: Rows;
  readonly dtRows: Rows;
  readonly BRows: Rows;
  readonly CRows: Rows;
  readonly zRows: Rows | undefined;
  readonly A: Float64Array;
  /** (H, P); a D of one number per head is repeated. */
  readonly D: Float64Array | undefined;
  readonly dtBias: Float64Array | undefined;
  /** (B, H, P, N) */
  readonly initialState: Float64Array | undefined;
  /** (B,): tokens of each row that are no padding. */
  readonly ends: Int32Array;

  /** The chunk's first token, its number of tokens without padding, and its row of (B * L). */
  first = 0;
  count = 0;
  row = 0;
  /** (Q,): the first token of the chunk that token i sees, which is of its own sequence. */
  readonly seesFrom: Int32Array;
  /** (Q,) 1 where token i also sees the state that enters the chunk. */
  readonly seesState: Uint8Array;
  /** (Q, N) of one group. */
  readonly B: Float64Array;
  readonly C: Float64Array;
  /** (Q, Q) C_i . B_j where i sees j; elsewhere not set. */
  readonly CB: Float64Array;
  /** (Q, P) x and X = dt x of one head. */
  readonly x: Float64Array;
  readonly X: Float64Array;
  /** (Q,) dt with its bias, and dt after softplus and limits. */
  readonly dtRaw: Float64Array;
  readonly dt: Float64Array;
  /** (Q,) 1 where the limits leave dt as it is. */
  readonly dtFree: Uint8Array;
  /** (Q,) a_i, the sum of dt A from the first token that i sees up to i. */
  readonly a: Float64Array;
  /** (Q, P) y of one head, before the gate. */
  readonly y: Float64Array;

  private readonly starts: Int32Array;

  constructor(
    inputs: SsdInputs,
    readonly options: SsdOptions,
  ) {
    [this.batch, this.length, this.heads, this.headDim] = inputs.x.shape;
    [, , this.groups, this.dState] = inputs.B.shape;
    this.chunks = Math.ceil(this.length / options.chunkSize);
    this.xRows = new Rows("ssdScan: x", inputs.x, 2);
    this.dtRows = new Rows("ssdScan: dt", inputs.dt, 1);
    this.BRows = new Rows("ssdScan: B", inputs.B, 2);
    this.CRows = new Rows("ssdScan: C", inputs.C, 2);
    this.zRows = optionalRows("ssdScan: z", inputs.z, 2);
    this.A = toDoubles("ssdScan: A", inputs.A);
    this.dtBias = optionalDoubles("ssdScan: dtBias", inputs.dtBias);
    this.initialState = optionalDoubles("ssdScan: initialState", inputs.initialState);
    this.ends = rowLengths(inputs.lengths, this.batch, this.length);
    this.starts = sequenceStarts(inputs.seqIdx, this.batch, this.length);

    const skip = optionalDoubles("ssdScan: D", inputs.D);
    if (skip !== undefined && inputs.D?.shape.length === 1) {
      this.D = new Float64Array(this.heads * this.headDim);
      for (let i = 0; i < this.D.length; i++) this.D[i] = skip[Math.floor(i / this.headDim)];
    } else {
      this.D = skip;
    }

    const q = Math.min(options.chunkSize, this.length);
    this.seesFrom = new Int32Array(q);
    this.seesState = new Uint8Array(q);
    this.B = new Float64Array(q * this.dState);
    this.C = new Float64Array(q * this.dState);
    this.CB = new Float64Array(q * q);
    this.x = new Float64Array(q * this.headDim);
    this.X = new Float64Array(q * this.headDim);
    this.dtRaw = new Float64Array(q);
    this.dt = new Float64Array(q);
    this.dtFree = new Uint8Array(q);
    this.a = new Float64Array(q);
    this.y = new Float64Array(q * this.headDim);
  }

  /** The group of head h. */
  groupOf(h: number): number {
    return Math.floor((h * this.groups) / this.heads);
  }

  /** The number of chunks of row b that are not padding alone. */
  chunksOf(b: number): number {
    return Math.ceil(this.ends[b] / this.options.chunkSize);
  }

  loadChunk(b: number, chunk: number): void {
    const { seesFrom, seesState } = this;
    const { chunkSize } = this.options;
    const first = chunk * chunkSize;
    this.first = first;
    this.count = Math.min(chunkSize, this.ends[b] - first);
    this.row = b * this.length + first;
    for (let i = 0; i < this.count; i++) {
      const start = this.starts[this.row + i];
      seesFrom[i] = Math.max(start - first, 0);
      seesState[i] = start === 0 || start < first ? 1 : 0;
    }
  }

  loadGroup(group: number): void {
    const { count, dState, B, C, CB, seesFrom } = this;
    for (let i = 0; i < count; i++) {
      this.BRows.load(this.row + i, B, group * dState, i * dState, dState);
      this.CRows.load(this.row + i, C, group * dState, i * dState, dState);
    }
    for (let i = 0; i < count; i++) {
      for (let j = seesFrom[i]; j <= i; j++) CB[i * count + j] = dot(C, i * dState, B, j * dState, dState);
    }
  }

  loadHead(h: number): void {
    const { count, headDim, x, X, dtRaw, dt, dtFree, a, seesFrom } = this;
    const { dtSoftplus, dtLimit } = this.options;
    const [low, high] = dtLimit;
    const bias = this.dtBias === undefined ? 0 : this.dtBias[h];
    for (let i = 0; i < count; i++) {
      dtRaw[i] = this.dtRows.get(this.row + i, h) + bias;
      const value = dtSoftplus ? softplus(dtRaw[i]) : dtRaw[i];
      dt[i] = Math.min(Math.max(value, low), high);
      dtFree[i] = value >= low && value <= high ? 1 : 0;
      a[i] = dt[i] * this.A[h] + (i > seesFrom[i] ? a[i - 1] : 0);
      this.xRows.load(this.row + i, x, h * headDim, i * headDim, headDim);
      for (let p = 0; p < headDim; p++) X[i * headDim + p] = dt[i] * x[i * headDim + p];
    }
  }

  /** Sets y of head h from the state (H, P, N) that enters the chunk. */
  computeOutput(h: number, state: Float64Array): void {
    const { count, headDim, dState, x, X, C, CB, a, D, y, seesFrom, seesState } = this;
    const stateAt = h * headDim * dState;
    y.fill(0);
    for (let i = 0; i < count; i++) {
      const yAt = i * headDim;
      // Within the chunk: Y_i = sum_{j<=i} (C_i . B_j) e^{a_i-a_j} X_j
      for (let j = seesFrom[i]; j <= i; j++) {
        const K = CB[i * count + j] * Math.exp(a[i] - a[j]);
        addScaled(y, yAt, K, X, j * headDim, headDim);
      }
      // From before the chunk: Y_i += e^{a_i} S C_i
      if (seesState[i] === 1) {
        const decay = Math.exp(a[i]);
        for (let p = 0; p < headDim; p++) {
          y[yAt + p] += decay * dot(state, stateAt + p * dState, C, i * dState, dState);
        }
      }
      if (D !== undefined) for (let p = 0; p < headDim; p++) y[yAt + p] += D[h * headDim + p] * x[yAt + p];
    }
  }

  /** Turns the state of head h that enters the chunk into the one that leaves it. */
  advance(h: number, state: Float64Array): void {
    const { count, headDim, dState, X, B, a, seesFrom, seesState } = this;
    const last = count - 1;
    const stateAt = h * headDim * dState;
    const stateEnd = stateAt + headDim * dState;
    // S <- e^{a_Q} S + sum_j e^{a_Q-a_j} X_j B_j^T
    if (seesState[last] === 0) state.fill(0, stateAt, stateEnd);
    const kept = Math.exp(a[last]);
    for (let k = stateAt; k < stateEnd; k++) state[k] *= kept;
    for (let j = seesFrom[last]; j < count; j++) {
      const decay = Math.exp(a[last] - a[j]);
      for (let p = 0; p < headDim; p++) {
        addScaled(state, stateAt + p * dState, decay * X[j * headDim + p], B, j * dState, dState);
      }
    }
  }
}

/**
 * The scan of Mamba-2 (arXiv 2405.21060, section 6) for each head h of group g, from S = initialState or 0 (P, N):
 *
 *     dt_t = clamp(softplus(dt_t + dtBias), dtLimit)     (softplus if `dtSoftplus`)
 *     S_t  = e^{dt_t A} S_{t-1} + dt_t x_t B_t^T
 *     y_t  = (S_t C_t + D x_t) silu(z_t)
 *
 * in chunks of Q = `chunkSize` tokens, the last one shorter: with a_i = sum_{k<=i} dt_k A and X_j = dt_j x_j,
 * Y_i = sum_{j<=i} (C_i . B_j) e^{a_i-a_j} X_j + e^{a_i} S C_i, S <- e^{a_Q} S + sum_j e^{a_Q-a_j} X_j B_j^T. Decays
 * come from differences of a with i >= j alone, so they never exceed 1 for A < 0; the result does not depend on Q but for
 * rounding.
 *
 * x, z, y (B, L, H, P); dt (B, L, H); A, dtBias (H,); B, C (B, L, G, N); D (H,) or (H, P); initialState, finalState
 * (B, H, P, N). Where `seqIdx` changes, S_{t-1} is taken as 0; `initialState` belongs to a row's first sequence and
 * `finalState` is the state of its last one. Tokens from `lengths` on are padding: y is 0, the state stays as it is.
 * `states` (B, ceil(L / Q), H, P, N) is what backward starts each chunk from: the state that the chunk's first token
 * finds, before any restart at that token.
 */
export const ssdScan: RoutineKernels["ssdScan"] = (inputs, outputs, options) => {
  const chunk = new SsdChunk(inputs, options);
  const { batch, length, heads, headDim, dState, chunks, y, zRows } = chunk;
  const yRows = new Rows("ssdScan: y", outputs.y, 2);
  const states = outputs.states && new Rows("ssdScan: states", outputs.states, 3);
  const size = heads * headDim * dState;
  const state = new Float64Array(size);
  const finalState = new Float64Array(batch * size);
  const z = new Float64Array(headDim);
  for (let b = 0; b < batch; b++) {
    if (chunk.initialState === undefined) state.fill(0);
    else state.set(chunk.initialState.subarray(b * size, (b + 1) * size));
    for (let k = 0; k < chunks; k++) {
      states?.store(b * chunks + k, state);
      if (k >= chunk.chunksOf(b)) continue;
      chunk.loadChunk(b, k);
      for (let h = 0; h < heads; h++) {
        if (h === 0 || chunk.groupOf(h) !== chunk.groupOf(h - 1)) chunk.loadGroup(chunk.groupOf(h));
        chunk.loadHead(h);
        chunk.computeOutput(h, state);
        chunk.advance(h, state);
        for (let i = 0; i < chunk.count; i++) {
          if (zRows !== undefined) {
            zRows.load(chunk.row + i, z, h * headDim, 0, headDim);
            for (let p = 0; p < headDim; p++) y[i * headDim + p] *= silu(z[p]);
          }
          yRows.store(chunk.row + i, y, h * headDim, i * headDim, headDim);
        }
      }
    }
    yRows.clear(b * length + chunk.ends[b], (b + 1) * length);
    finalState.set(state, b * size);
  }
  storeDoubles("ssdScan: finalState", outputs.finalState, finalState);
};
