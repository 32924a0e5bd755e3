// Layer: reference backend. LayerNorm over the last axis and its gradient, as plain loops.
// Knows views; knows no Tensor and no tape.

import type { RoutineKernels } from "../routineKernels.js";
import { optionalDoubles, optionalRows, Rows, storeDoubles, toDoubles } from "./views.js";

/**
 * y = w (x - mean) rstd + bias, rstd = (var + eps)^(-1/2), with the biased variance (arXiv 1607.06450).
 * x, y (R, D) rows; weight, bias (D,); mean, rstd (R,), saved for backward.
 */
export const layerNorm: RoutineKernels["layerNorm"] = (inputs, outputs, { eps }) => {
  const xRows = new Rows("layerNorm: x", inputs.x, 1);
  const yRows = new Rows("layerNorm: y", outputs.y, 1);
  const weight = toDoubles("layerNorm: weight", inputs.weight);
  const bias = optionalDoubles("layerNorm: bias", inputs.bias);
  const { width, count } = xRows;
  const means = new Float64Array(count);
  const rstds = new Float64Array(count);
  const x = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    xRows.load(row, x);
    let sum = 0;
    for (let c = 0; c < width; c++) sum += x[c];
    const mean = sum / width;
    let squares = 0;
    for (let c = 0; c < width; c++) squares += (x[c] - mean) * (x[c] - mean);
    const rstd = 1 / Math.sqrt(squares / width + eps);
    for (let c = 0; c < width; c++) x[c] = weight[c] * (x[c] - mean) * rstd + (bias === undefined ? 0 : bias[c]);
    yRows.store(row, x);
    means[row] = mean;
    rstds[row] = rstd;
  }
  storeDoubles("layerNorm: mean", outputs.mean, means);
  storeDoubles("layerNorm: rstd", outputs.rstd, rstds);
};

/**
 * The gradient of {@link layerNorm}, from the saved mean and rstd. With n = (x - mean) rstd and g = w dy:
 * dx = rstd (g - mean(g) - n mean(g n)), dw = sum dy n, dbias = sum dy.
 */
export const layerNormBackward: RoutineKernels["layerNormBackward"] = (inputs, outputs) => {
  const xRows = new Rows("layerNormBackward: x", inputs.x, 1);
  const dyRows = optionalRows("layerNormBackward: dy", inputs.dy, 1);
  const dxRows = optionalRows("layerNormBackward: dx", outputs.dx, 1);
  const weight = toDoubles("layerNormBackward: weight", inputs.weight);
  const means = toDoubles("layerNormBackward: mean", inputs.mean);
  const rstds = toDoubles("layerNormBackward: rstd", inputs.rstd);
  const { width, count } = xRows;
  const dweight = new Float64Array(width);
  const dbias = new Float64Array(width);
  const n = new Float64Array(width);
  const dy = new Float64Array(width);
  const dx = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    xRows.load(row, n);
    dyRows?.load(row, dy);
    let sumG = 0;
    let sumGN = 0;
    for (let c = 0; c < width; c++) {
      n[c] = (n[c] - means[row]) * rstds[row];
      dweight[c] += dy[c] * n[c];
      dbias[c] += dy[c];
      sumG += weight[c] * dy[c];
      sumGN += weight[c] * dy[c] * n[c];
    }
    for (let c = 0; c < width; c++) dx[c] = rstds[row] * (weight[c] * dy[c] - sumG / width - (n[c] * sumGN) / width);
    dxRows?.store(row, dx);
  }
  storeDoubles("layerNormBackward: dweight", outputs.dweight, dweight);
  storeDoubles("layerNormBackward: dbias", outputs.dbias, dbias);
};
