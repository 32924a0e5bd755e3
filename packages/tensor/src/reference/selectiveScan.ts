// Layer: reference backend. The selective scan (S6) of Mamba and its gradient, with state, packing and padding, as plain
// loops. Knows views; knows no Tensor and no tape.

import type { RoutineKernels, SelectiveScanInputs, SelectiveScanOptions } from "../routineKernels.js";
import {
  optionalDoubles,
  optionalRows,
  Rows,
  rowLengths,
  sequenceStarts,
  sigmoid,
  silu,
  siluGradient,
  softplus,
  storeDoubles,
  toDoubles,
} from "./views.js";

/** The inputs as rows and doubles, and the sizes B, L, D, N, G. */
class Scan {
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly dState: number;
  readonly groups: number;
  readonly chunks: number;
  readonly u: Rows;
  readonly delta: Rows;
  readonly A: Float64Array;
  readonly B: Rows;
  readonly C: Rows;
  readonly D: Float64Array | undefined;
  readonly z: Rows | undefined;
  readonly deltaBias: Float64Array | undefined;
  /** (B, D, N) */
  readonly initialState: Float64Array | undefined;
  readonly ends: Int32Array;
  readonly starts: Int32Array;

  constructor(inputs: SelectiveScanInputs, options: SelectiveScanOptions) {
    [this.batch, this.length, this.channels] = inputs.u.shape;
    this.dState = inputs.A.shape[1];
    this.groups = inputs.B.shape[2];
    this.chunks = Math.ceil(this.length / options.chunkSize);
    this.u = new Rows("selectiveScan: u", inputs.u, 1);
    this.delta = new Rows("selectiveScan: delta", inputs.delta, 1);
    this.A = toDoubles("selectiveScan: A", inputs.A);
    this.B = new Rows("selectiveScan: B", inputs.B, 2);
    this.C = new Rows("selectiveScan: C", inputs.C, 2);
    this.D = optionalDoubles("selectiveScan: D", inputs.D);
    this.z = optionalRows("selectiveScan: z", inputs.z, 1);
    this.deltaBias = optionalDoubles("selectiveScan: deltaBias", inputs.deltaBias);
    this.initialState = optionalDoubles("selectiveScan: initialState", inputs.initialState);
    this.ends = rowLengths(inputs.lengths, this.batch, this.length);
    this.starts = sequenceStarts(inputs.seqIdx, this.batch, this.length);
  }

  /** The group of channel d. */
  groupOf(d: number): number {
    return Math.floor((d * this.groups) / this.channels);
  }
}

/**
 * The S6 recurrence of Mamba (arXiv 2312.00752, equations 2a and 2b, with the Euler step for B), for each channel d of
 * group g and each state n, from h = initialState or 0:
 *
 *     Delta_t = softplus(delta_t + deltaBias)          (softplus if `deltaSoftplus`)
 *     h_t[n]  = e^{Delta_t A[n]} h_{t-1}[n] + Delta_t B_t[g, n] u_t
 *     y_t     = (sum_n C_t[g, n] h_t[n] + D u_t) silu(z_t)
 *
 * u, delta, z, y (B, L, D); A (D, N); B, C (B, L, G, N); D, deltaBias (D,); initialState, finalState (B, D, N).
 * Where `seqIdx` changes, h_{t-1} is taken as 0; `initialState` belongs to a row's first sequence and `finalState` is
 * the state of its last one. Tokens from `lengths` on are padding: y is 0 and the state stays as it is.
 * `states` (B, ceil(L / chunkSize), D, N) is what backward starts each chunk from: the state that the chunk's first
 * token finds, before any restart at that token.
 */
export const selectiveScan: RoutineKernels["selectiveScan"] = (inputs, outputs, options) => {
  const scan = new Scan(inputs, options);
  const { batch, length, channels, dState, groups, chunks, A, D, z, deltaBias } = scan;
  const { chunkSize, deltaSoftplus } = options;
  const y = new Rows("selectiveScan: y", outputs.y, 1);
  const size = channels * dState;
  const states = outputs.states && new Rows("selectiveScan: states", outputs.states, 2);
  const finalState = new Rows("selectiveScan: finalState", outputs.finalState, 2);
  const h = new Float64Array(size);
  const ut = new Float64Array(channels);
  const dt = new Float64Array(channels);
  const zt = new Float64Array(channels);
  const yt = new Float64Array(channels);
  const Bt = new Float64Array(groups * dState);
  const Ct = new Float64Array(groups * dState);

  for (let b = 0; b < batch; b++) {
    if (scan.initialState === undefined) h.fill(0);
    else h.set(scan.initialState.subarray(b * size, (b + 1) * size));
    const end = scan.ends[b];
    for (let t = 0; t < end; t++) {
      const row = b * length + t;
      if (t % chunkSize === 0) states?.store(b * chunks + t / chunkSize, h);
      if (t > 0 && scan.starts[row] === t) h.fill(0);
      scan.u.load(row, ut);
      scan.delta.load(row, dt);
      scan.B.load(row, Bt);
      scan.C.load(row, Ct);
      for (let d = 0; d < channels; d++) {
        if (deltaBias !== undefined) dt[d] += deltaBias[d];
        if (deltaSoftplus) dt[d] = softplus(dt[d]);
        const delta = dt[d];
        const deltaU = delta * ut[d];
        const at = d * dState;
        const group = scan.groupOf(d) * dState;
        let sum = D === undefined ? 0 : D[d] * ut[d];
        for (let n = 0; n < dState; n++) {
          const state = Math.exp(delta * A[at + n]) * h[at + n] + deltaU * Bt[group + n];
          h[at + n] = state;
          sum += Ct[group + n] * state;
        }
        yt[d] = sum;
      }
      if (z !== undefined) {
        z.load(row, zt);
        for (let d = 0; d < channels; d++) yt[d] *= silu(zt[d]);
      }
      y.store(row, yt);
    }
    y.clear(b * length + end, (b + 1) * length);
    for (let chunk = Math.ceil(end / chunkSize); chunk < chunks; chunk++) states?.store(b * chunks + chunk, h);
    finalState.store(b, h);
  }
};

/**
 * The gradient of {@link selectiveScan}: time runs backwards, with g_t = dL/dh_t (the adjoint of the recurrence).
 * With dy = dout silu(z), and sums over the states n, or for B and C over the channels of the group:
 *
 *     g_t = C_t dy_t + e^{Delta_{t+1} A} g_{t+1}          dC_t = dy_t h_t        dB_t = g_t Delta_t u_t
 *     du_t = D dy_t + sum_n g_t Delta_t B_t               dA = sum_t g_t Delta_t e^{Delta_t A} h_{t-1}
 *     dDelta_t = sum_n g_t (B_t u_t + A e^{Delta_t A} h_{t-1})
 *     ddelta_t = dDelta_t sigmoid(delta_t + deltaBias)    dz = dout y silu'(z)   dD = sum_t dy_t u_t
 *
 * Where a sequence restarts h_{t-1} counts as 0 and g does not flow to the token before. Recomputes each chunk's states
 * from `states`; the scratch is two arrays of chunkSize * N for the channel at hand.
 */
export const selectiveScanBackward: RoutineKernels["selectiveScanBackward"] = (inputs, outputs, options) => {
  const scan = new Scan(inputs, options);
  const { batch, length, channels, dState, groups, chunks, A, D, z, deltaBias } = scan;
  const { deltaSoftplus } = options;
  const chunkSize = Math.min(options.chunkSize, length);
  const size = channels * dState;
  const states = new Rows("selectiveScanBackward: states", inputs.states, 2);
  const dfinal = optionalRows("selectiveScanBackward: dfinalState", inputs.dfinalState, 2);
  const dy = optionalRows("selectiveScanBackward: dy", inputs.dy, 1);
  const du = optionalRows("selectiveScanBackward: du", outputs.du, 1);
  const ddelta = optionalRows("selectiveScanBackward: ddelta", outputs.ddelta, 1);
  const dB = optionalRows("selectiveScanBackward: dB", outputs.dB, 2);
  const dC = optionalRows("selectiveScanBackward: dC", outputs.dC, 2);
  const dz = optionalRows("selectiveScanBackward: dz", outputs.dz, 1);
  const dinitial = optionalRows("selectiveScanBackward: dinitialState", outputs.dinitialState, 2);
  const dA = new Float64Array(size);
  const dD = new Float64Array(channels);
  const ddeltaBias = new Float64Array(channels);

  // g of the chunk's first token, already multiplied by its decay: what the tokens before receive.
  const carry = new Float64Array(size);
  // One chunk: B, C and their gradients for all groups; one channel of the chunk: its states and decays.
  const bc = groups * dState;
  const Bs = new Float64Array(chunkSize * bc);
  const Cs = new Float64Array(chunkSize * bc);
  const dBs = new Float64Array(chunkSize * bc);
  const dCs = new Float64Array(chunkSize * bc);
  const h = new Float64Array((chunkSize + 1) * dState);
  const decay = new Float64Array(chunkSize * dState);
  const raw = new Float64Array(chunkSize);
  const deltas = new Float64Array(chunkSize);
  const us = new Float64Array(chunkSize);
  const ys = new Float64Array(chunkSize);

  for (let b = 0; b < batch; b++) {
    if (dfinal === undefined) carry.fill(0);
    else dfinal.load(b, carry);
    const end = scan.ends[b];
    for (let chunk = Math.ceil(end / options.chunkSize) - 1; chunk >= 0; chunk--) {
      const first = chunk * options.chunkSize;
      const count = Math.min(chunkSize, end - first);
      const row = b * length + first;
      for (let i = 0; i < count; i++) {
        scan.B.load(row + i, Bs, 0, i * bc);
        scan.C.load(row + i, Cs, 0, i * bc);
      }
      dBs.fill(0);
      dCs.fill(0);
      for (let d = 0; d < channels; d++) {
        const at = d * dState;
        const group = scan.groupOf(d) * dState;
        const skip = D === undefined ? 0 : D[d];

        // Forward again. Row i of h is the state that token first + i finds (0 where it restarts), row i + 1 what it leaves.
        states.load(b * chunks + chunk, h, at, 0, dState);
        for (let i = 0; i < count; i++) {
          us[i] = scan.u.get(row + i, d);
          raw[i] = scan.delta.get(row + i, d) + (deltaBias === undefined ? 0 : deltaBias[d]);
          const delta = deltaSoftplus ? softplus(raw[i]) : raw[i];
          deltas[i] = delta;
          const deltaU = delta * us[i];
          const before = i * dState;
          const after = before + dState;
          const bcAt = i * bc + group;
          const restart = first + i > 0 && scan.starts[row + i] === first + i;
          let sum = skip * us[i];
          for (let n = 0; n < dState; n++) {
            const alpha = restart ? 0 : Math.exp(delta * A[at + n]);
            const state = (restart ? 0 : alpha * h[before + n]) + deltaU * Bs[bcAt + n];
            decay[before + n] = alpha;
            h[after + n] = state;
            sum += Cs[bcAt + n] * state;
          }
          ys[i] = sum;
        }

        for (let i = count - 1; i >= 0; i--) {
          let dyi = dy === undefined ? 0 : dy.get(row + i, d);
          if (z !== undefined) {
            const zi = z.get(row + i, d);
            dz?.set(row + i, d, dyi * ys[i] * siluGradient(zi));
            dyi *= silu(zi);
          }
          const delta = deltas[i];
          const deltaU = delta * us[i];
          const before = i * dState;
          const after = before + dState;
          const bcAt = i * bc + group;
          let gB = 0;
          let dDelta = 0;
          for (let n = 0; n < dState; n++) {
            const g = Cs[bcAt + n] * dyi + carry[at + n];
            const alpha = decay[before + n];
            const decayed = alpha === 0 ? 0 : alpha * h[before + n];
            dCs[bcAt + n] += dyi * h[after + n];
            dBs[bcAt + n] += g * deltaU;
            gB += g * Bs[bcAt + n];
            dDelta += g * A[at + n] * decayed;
            dA[at + n] += g * delta * decayed;
            carry[at + n] = alpha * g;
          }
          dDelta += gB * us[i];
          dD[d] += dyi * us[i];
          du?.set(row + i, d, skip * dyi + gB * delta);
          if (deltaSoftplus) dDelta *= sigmoid(raw[i]);
          ddelta?.set(row + i, d, dDelta);
          ddeltaBias[d] += dDelta;
        }
      }
      for (let i = 0; i < count; i++) {
        dB?.store(row + i, dBs, 0, i * bc);
        dC?.store(row + i, dCs, 0, i * bc);
      }
    }
    dinitial?.store(b, carry);
    const [from, to] = [b * length + end, (b + 1) * length];
    du?.clear(from, to);
    ddelta?.clear(from, to);
    dB?.clear(from, to);
    dC?.clear(from, to);
    dz?.clear(from, to);
  }
  storeDoubles("selectiveScanBackward: dA", outputs.dA, dA);
  storeDoubles("selectiveScanBackward: dD", outputs.dD, dD);
  storeDoubles("selectiveScanBackward: ddeltaBias", outputs.ddeltaBias, ddeltaBias);
};
