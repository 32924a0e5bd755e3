// Layer: reference backend. RMSNorm, plain, gated before or after, in groups, and its gradient, as plain loops.
// Knows views; knows no Tensor and no tape.

import type { RoutineKernels } from "../routineKernels.js";
import { optionalRows, Rows, sigmoid, silu, storeDoubles, toDoubles } from "./views.js";

/**
 * y = w v rstd, rstd = (mean(v^2) + eps)^(-1/2), the mean over each group of `groupSize` channels (arXiv 1910.07467,
 * equation 4). Without z, v = x. With z, either v = x silu(z), the gated norm of Mamba-2 (arXiv 2405.21060, section 6.4),
 * or, `normBeforeGate`, v = x and y is multiplied by silu(z) at the end.
 * x, z, y (R, D) rows; weight (D,); rstd (R, D / groupSize), saved for backward.
 */
export const rmsNorm: RoutineKernels["rmsNorm"] = (inputs, outputs, { eps, groupSize, normBeforeGate }) => {
  const xRows = new Rows("rmsNorm: x", inputs.x, 1);
  const zRows = optionalRows("rmsNorm: z", inputs.z, 1);
  const yRows = new Rows("rmsNorm: y", outputs.y, 1);
  const weight = toDoubles("rmsNorm: weight", inputs.weight);
  const width = xRows.width;
  const groups = width / groupSize;
  const rstd = new Float64Array(xRows.count * groups);
  const v = new Float64Array(width);
  const z = new Float64Array(width);
  for (let row = 0; row < xRows.count; row++) {
    xRows.load(row, v);
    zRows?.load(row, z);
    if (zRows !== undefined && !normBeforeGate) for (let c = 0; c < width; c++) v[c] *= silu(z[c]);
    for (let group = 0; group < groups; group++) {
      const from = group * groupSize;
      const to = from + groupSize;
      let sum = 0;
      for (let c = from; c < to; c++) sum += v[c] * v[c];
      const r = 1 / Math.sqrt(sum / groupSize + eps);
      rstd[row * groups + group] = r;
      for (let c = from; c < to; c++) v[c] *= r * weight[c];
    }
    if (zRows !== undefined && normBeforeGate) for (let c = 0; c < width; c++) v[c] *= silu(z[c]);
    yRows.store(row, v);
  }
  storeDoubles("rmsNorm: rstd", outputs.rstd, rstd);
};

/**
 * The gradient of {@link rmsNorm}, from the saved rstd. With g = w dL/d(v rstd w), over each group of `groupSize`
 * channels: dv = rstd g - v rstd^3 mean(g v); dw = sum over rows of dL/d(v rstd w) v rstd; the gate gives
 * dz = upstream * (what is gated) * silu'(z).
 */
export const rmsNormBackward: RoutineKernels["rmsNormBackward"] = (inputs, outputs, { groupSize, normBeforeGate }) => {
  const xRows = new Rows("rmsNormBackward: x", inputs.x, 1);
  const zRows = optionalRows("rmsNormBackward: z", inputs.z, 1);
  const dyRows = optionalRows("rmsNormBackward: dy", inputs.dy, 1);
  const dxRows = optionalRows("rmsNormBackward: dx", outputs.dx, 1);
  const dzRows = optionalRows("rmsNormBackward: dz", outputs.dz, 1);
  const weight = toDoubles("rmsNormBackward: weight", inputs.weight);
  const rstd = toDoubles("rmsNormBackward: rstd", inputs.rstd);
  const width = xRows.width;
  const groups = width / groupSize;
  const dweight = new Float64Array(width);
  const x = new Float64Array(width);
  const v = new Float64Array(width);
  const z = new Float64Array(width);
  const gate = new Float64Array(width);
  const slope = new Float64Array(width);
  const dy = new Float64Array(width);
  const dv = new Float64Array(width);
  const dz = new Float64Array(width);
  for (let row = 0; row < xRows.count; row++) {
    xRows.load(row, x);
    dyRows?.load(row, dy);
    v.set(x);
    if (zRows !== undefined) {
      zRows.load(row, z);
      for (let c = 0; c < width; c++) {
        const s = sigmoid(z[c]);
        gate[c] = z[c] * s;
        slope[c] = s * (1 + z[c] * (1 - s));
        if (!normBeforeGate) v[c] *= gate[c];
      }
    }
    for (let group = 0; group < groups; group++) {
      const from = group * groupSize;
      const to = from + groupSize;
      const r = rstd[row * groups + group];
      if (zRows !== undefined && normBeforeGate) {
        for (let c = from; c < to; c++) {
          dz[c] = dy[c] * weight[c] * v[c] * r * slope[c];
          dy[c] *= gate[c];
        }
      }
      let gv = 0;
      for (let c = from; c < to; c++) {
        dweight[c] += dy[c] * v[c] * r;
        gv += weight[c] * dy[c] * v[c];
      }
      const shared = (r * r * r * gv) / groupSize;
      for (let c = from; c < to; c++) dv[c] = r * weight[c] * dy[c] - v[c] * shared;
    }
    if (zRows !== undefined && !normBeforeGate) {
      for (let c = 0; c < width; c++) {
        dz[c] = dv[c] * x[c] * slope[c];
        dv[c] *= gate[c];
      }
    }
    dxRows?.store(row, dv);
    dzRows?.store(row, dz);
  }
  storeDoubles("rmsNormBackward: dweight", outputs.dweight, dweight);
};
