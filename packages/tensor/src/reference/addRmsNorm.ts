// Layer: reference backend. A residual sum with its RMSNorm, and the gradient of both, as plain loops.
// Knows views; knows no Tensor and no tape.

import type { RoutineKernels } from "../routineKernels.js";
import { optionalRows, Rows, storeDoubles, toDoubles } from "./views.js";

/**
 * sum = x + y; normed = weight sum rstd, rstd = (mean(sum^2) + eps)^(-1/2) (arXiv 1910.07467, equation 4), from the sum as it is
 * stored. x, y, sum, normed (R, D) rows; weight (D,); rstd (R,), saved for backward. Without y the sum is x.
 */
export const addRmsNorm: RoutineKernels["addRmsNorm"] = (inputs, outputs, { eps }) => {
  const xRows = new Rows("addRmsNorm: x", inputs.x, 1);
  const yRows = optionalRows("addRmsNorm: y", inputs.y, 1);
  const sumRows = optionalRows("addRmsNorm: sum", outputs.sum, 1);
  const normedRows = new Rows("addRmsNorm: normed", outputs.normed, 1);
  const weight = toDoubles("addRmsNorm: weight", inputs.weight);
  const { count, width } = xRows;
  const rstd = new Float64Array(count);
  const sum = new Float64Array(width);
  const y = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    xRows.load(row, sum);
    yRows?.load(row, y);
    for (let c = 0; c < width; c++) sum[c] += y[c];
    sumRows?.store(row, sum);
    sumRows?.load(row, sum);
    let squares = 0;
    for (let c = 0; c < width; c++) squares += sum[c] * sum[c];
    rstd[row] = 1 / Math.sqrt(squares / width + eps);
    for (let c = 0; c < width; c++) sum[c] *= rstd[row] * weight[c];
    normedRows.store(row, sum);
  }
  storeDoubles("addRmsNorm: rstd", outputs.rstd, rstd);
};

/**
 * The gradient of {@link addRmsNorm}. With g = weight dnormed: d = dsum + rstd g - sum rstd^3 mean(g sum), which is both dx and
 * dy; dweight = sum over rows of dnormed sum rstd.
 */
export const addRmsNormBackward: RoutineKernels["addRmsNormBackward"] = (inputs, outputs) => {
  const sumRows = new Rows("addRmsNormBackward: sum", inputs.sum, 1);
  const dsumRows = optionalRows("addRmsNormBackward: dsum", inputs.dsum, 1);
  const dnormedRows = optionalRows("addRmsNormBackward: dnormed", inputs.dnormed, 1);
  const dxRows = optionalRows("addRmsNormBackward: dx", outputs.dx, 1);
  const dyRows = optionalRows("addRmsNormBackward: dy", outputs.dy, 1);
  const weight = toDoubles("addRmsNormBackward: weight", inputs.weight);
  const rstd = toDoubles("addRmsNormBackward: rstd", inputs.rstd);
  const { count, width } = sumRows;
  const dweight = new Float64Array(width);
  const sum = new Float64Array(width);
  const d = new Float64Array(width);
  const dnormed = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    const r = rstd[row];
    sumRows.load(row, sum);
    if (dsumRows === undefined) d.fill(0);
    else dsumRows.load(row, d);
    dnormedRows?.load(row, dnormed);
    let product = 0;
    for (let c = 0; c < width; c++) {
      dweight[c] += dnormed[c] * sum[c] * r;
      product += weight[c] * dnormed[c] * sum[c];
    }
    const shared = (r * r * r * product) / width;
    for (let c = 0; c < width; c++) d[c] += r * weight[c] * dnormed[c] - sum[c] * shared;
    dxRows?.store(row, d);
    dyRows?.store(row, d);
  }
  storeDoubles("addRmsNormBackward: dweight", outputs.dweight, dweight);
};
