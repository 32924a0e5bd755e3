// Layer: reference backend. The gradient of the Mamba-2 scan, chunk by chunk from the last to the first. Plain loops.
// Knows views and the chunk of ssdScan.ts; knows no Tensor and no tape.

import type { RoutineKernels } from "../routineKernels.js";
import { SsdChunk } from "./ssdScan.js";
import { addScaled, dot } from "./vector.js";
import { optionalDoubles, optionalRows, Rows, sigmoid, silu, siluGradient, storeDoubles } from "./views.js";

/** Gradients of one chunk; those of B and C add up over the heads of a group. */
interface ChunkGradients {
  /** (Q, P) dL/dy before the gate, of one head. */
  readonly g: Float64Array;
  /** (Q, P) of one head. */
  readonly dX: Float64Array;
  /** (Q,) of one head: dL/da_i, then dL/d(dt_i A). */
  readonly da: Float64Array;
  /** (Q, N) of one group. */
  readonly dB: Float64Array;
  readonly dC: Float64Array;
}

/** The part of a head's gradient that stays within the chunk: pairs i >= j of one sequence. Sets dX and da. */
function withinChunk(chunk: SsdChunk, { g, dX, da, dB, dC }: ChunkGradients): void {
  const { count, headDim, dState, X, B, C, CB, a, seesFrom } = chunk;
  dX.fill(0);
  da.fill(0);
  for (let i = 0; i < count; i++) {
    const gAt = i * headDim;
    const cAt = i * dState;
    for (let j = seesFrom[i]; j <= i; j++) {
      const xAt = j * headDim;
      const bAt = j * dState;
      const M = Math.exp(a[i] - a[j]);
      const W = dot(g, gAt, X, xAt, headDim) * M;
      const K = CB[i * count + j] * M;
      const R = CB[i * count + j] * W;
      addScaled(dX, xAt, K, g, gAt, headDim);
      addScaled(dC, cAt, W, B, bAt, dState);
      addScaled(dB, bAt, W, C, cAt, dState);
      da[i] += R;
      da[j] -= R;
    }
  }
}

/**
 * The part that flows through the states of head h: `dS` (H, P, N), the gradient of the state that leaves the chunk,
 * becomes that of the state S that enters it. `inner` is scratch (N,).
 */
function throughStates(
  chunk: SsdChunk,
  h: number,
  S: Float64Array,
  dS: Float64Array,
  inner: Float64Array,
  { g, dX, da, dB, dC }: ChunkGradients,
): void {
  const { count, headDim, dState, X, B, C, a, seesFrom, seesState } = chunk;
  const last = count - 1;
  const stateAt = h * headDim * dState;
  const stateEnd = stateAt + headDim * dState;

  // S_new += e^{a_Q-a_j} X_j B_j^T
  for (let j = seesFrom[last]; j < count; j++) {
    const decay = Math.exp(a[last] - a[j]);
    const bAt = j * dState;
    let q = 0;
    for (let p = 0; p < headDim; p++) {
      const at = stateAt + p * dState;
      const weight = decay * X[j * headDim + p];
      const dSB = dot(dS, at, B, bAt, dState);
      addScaled(dB, bAt, weight, dS, at, dState);
      dX[j * headDim + p] += decay * dSB;
      q += weight * dSB;
    }
    da[j] -= q;
    da[last] += q;
  }

  // S_new = e^{a_Q} S
  if (seesState[last] === 1) {
    const decay = Math.exp(a[last]);
    let product = 0;
    for (let k = stateAt; k < stateEnd; k++) {
      product += dS[k] * S[k];
      dS[k] *= decay;
    }
    da[last] += decay * product;
  } else {
    dS.fill(0, stateAt, stateEnd);
  }

  // Y_i += e^{a_i} S C_i
  for (let i = 0; i < count && seesState[i] === 1; i++) {
    const decay = Math.exp(a[i]);
    const cAt = i * dState;
    inner.fill(0);
    for (let p = 0; p < headDim; p++) {
      const weight = decay * g[i * headDim + p];
      const at = stateAt + p * dState;
      addScaled(inner, 0, weight, S, at, dState);
      addScaled(dS, at, weight, C, cAt, dState);
    }
    addScaled(dC, cAt, 1, inner, 0, dState);
    da[i] += dot(inner, 0, C, cAt, dState);
  }
}

/**
 * The gradient of ssdScan. For each chunk, last to first, with g = dy silu(z), dS the gradient of the state that leaves
 * the chunk, S the saved state that entered it, M_ij = e^{a_i-a_j}, K = (C_i . B_j) M_ij, W_ij = (g_i . X_j) M_ij,
 * R_ij = W_ij (C_i . B_j) and q_j = e^{a_Q-a_j} X_j . (dS B_j):
 *
 *     dX_j = sum_i K_ij g_i + e^{a_Q-a_j} dS B_j
 *     dC_i = sum_j W_ij B_j + e^{a_i} S^T g_i             dB_j = sum_i W_ij C_i + e^{a_Q-a_j} dS^T X_j
 *     da_i = sum_j R_ij - sum_k R_ki + e^{a_i} g_i . (S C_i) - q_i, and at Q also sum_j q_j + e^{a_Q} <dS, S>
 *     d(dt_t A) = sum_{i>=t} da_i                         dS <- e^{a_Q} dS + sum_i e^{a_i} g_i C_i^T
 *     ddt_t = A d(dt_t A) + x_t . dX_t                    dA = sum_t dt_t d(dt_t A)
 *     dx = dt dX + D g,  dD = sum g x,  dz = dy y silu'(z), with y before the gate, recomputed
 *
 * The gradient of a clamped dt is 0 outside `dtLimit`, and passes on its limits. Sums over pairs, states and later
 * tokens stay within a sequence; padding has zero gradients.
 */
export const ssdScanBackward: RoutineKernels["ssdScanBackward"] = (inputs, outputs, options) => {
  const chunk = new SsdChunk(inputs, options);
  const { batch, length, heads, headDim, dState, chunks, A, D, x, dt, dtRaw, dtFree, zRows, seesFrom } = chunk;
  const { dtSoftplus } = options;
  const states = new Rows("ssdScanBackward: states", inputs.states, 3);
  const dyRows = optionalRows("ssdScanBackward: dy", inputs.dy, 2);
  const dfinal = optionalDoubles("ssdScanBackward: dfinalState", inputs.dfinalState);
  const dxRows = optionalRows("ssdScanBackward: dx", outputs.dx, 2);
  const ddtRows = optionalRows("ssdScanBackward: ddt", outputs.ddt, 1);
  const dBRows = optionalRows("ssdScanBackward: dB", outputs.dB, 2);
  const dCRows = optionalRows("ssdScanBackward: dC", outputs.dC, 2);
  const dzRows = optionalRows("ssdScanBackward: dz", outputs.dz, 2);
  const dA = new Float64Array(heads);
  const dDtBias = new Float64Array(heads);
  const dD = new Float64Array(heads * headDim);
  const size = heads * headDim * dState;
  const dinitial = new Float64Array(batch * size);

  const tokens = Math.min(options.chunkSize, length);
  const gradients: ChunkGradients = {
    g: new Float64Array(tokens * headDim),
    dX: new Float64Array(tokens * headDim),
    da: new Float64Array(tokens),
    dB: new Float64Array(tokens * dState),
    dC: new Float64Array(tokens * dState),
  };
  const { g, dX, da, dB, dC } = gradients;
  const S = new Float64Array(size);
  const dS = new Float64Array(size);
  const inner = new Float64Array(dState);
  const z = new Float64Array(headDim);
  const out = new Float64Array(headDim);

  for (let b = 0; b < batch; b++) {
    if (dfinal === undefined) dS.fill(0);
    else dS.set(dfinal.subarray(b * size, (b + 1) * size));
    for (let k = chunk.chunksOf(b) - 1; k >= 0; k--) {
      chunk.loadChunk(b, k);
      const { row, count } = chunk;
      states.load(b * chunks + k, S);
      for (let h = 0; h < heads; h++) {
        const group = chunk.groupOf(h);
        if (h === 0 || group !== chunk.groupOf(h - 1)) {
          chunk.loadGroup(group);
          dB.fill(0);
          dC.fill(0);
        }
        chunk.loadHead(h);
        const column = h * headDim;

        // The gate and the skip connection: g, dz, dD.
        if (zRows !== undefined && dzRows !== undefined) chunk.computeOutput(h, S);
        for (let i = 0; i < count; i++) {
          const at = i * headDim;
          if (dyRows === undefined) g.fill(0, at, at + headDim);
          else dyRows.load(row + i, g, column, at, headDim);
          if (zRows !== undefined) {
            zRows.load(row + i, z, column, 0, headDim);
            for (let p = 0; p < headDim; p++) {
              out[p] = g[at + p] * chunk.y[at + p] * siluGradient(z[p]);
              g[at + p] *= silu(z[p]);
            }
            dzRows?.store(row + i, out, column, 0, headDim);
          }
          for (let p = 0; p < headDim; p++) dD[column + p] += g[at + p] * x[at + p];
        }

        withinChunk(chunk, gradients);
        throughStates(chunk, h, S, dS, inner, gradients);

        // From X = dt x and a = cumsum(dt A) to x, dt and A.
        for (let t = count - 1; t >= 0; t--) {
          const at = t * headDim;
          // Token t + 1 adds to a only within its own sequence.
          if (t < count - 1 && seesFrom[t + 1] <= t) da[t] += da[t + 1];
          let xdX = 0;
          for (let p = 0; p < headDim; p++) {
            xdX += x[at + p] * dX[at + p];
            out[p] = dt[t] * dX[at + p] + (D === undefined ? 0 : D[column + p] * g[at + p]);
          }
          dxRows?.store(row + t, out, column, 0, headDim);
          dA[h] += dt[t] * da[t];
          let ddt = dtFree[t] === 1 ? A[h] * da[t] + xdX : 0;
          if (dtSoftplus) ddt *= sigmoid(dtRaw[t]);
          ddtRows?.set(row + t, h, ddt);
          dDtBias[h] += ddt;
        }

        if (h === heads - 1 || group !== chunk.groupOf(h + 1)) {
          for (let i = 0; i < count; i++) {
            dBRows?.store(row + i, dB, group * dState, i * dState, dState);
            dCRows?.store(row + i, dC, group * dState, i * dState, dState);
          }
        }
      }
    }
    dinitial.set(dS, b * size);
    const [from, to] = [b * length + chunk.ends[b], (b + 1) * length];
    for (const rows of [dxRows, ddtRows, dBRows, dCRows, dzRows]) rows?.clear(from, to);
  }

  if (outputs.dD?.shape.length === 1) {
    const dDHead = new Float64Array(heads);
    for (let i = 0; i < dD.length; i++) dDHead[Math.floor(i / headDim)] += dD[i];
    storeDoubles("ssdScanBackward: dD", outputs.dD, dDHead);
  } else {
    storeDoubles("ssdScanBackward: dD", outputs.dD, dD);
  }
  storeDoubles("ssdScanBackward: dA", outputs.dA, dA);
  storeDoubles("ssdScanBackward: ddtBias", outputs.ddtBias, dDtBias);
  storeDoubles("ssdScanBackward: dinitialState", outputs.dinitialState, dinitial);
};
