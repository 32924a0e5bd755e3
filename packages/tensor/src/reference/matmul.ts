// Layer: reference backend. Matrix product: plain loops in an order that suits the layout, in doubles, rounded once.
// Knows rows and columns in memory. Knows no shape rule and no gradient.

import type { TypedArray } from "../dtype.js";
import type { View } from "../view.js";
import { elements } from "./strided.js";

/** One matrix in a buffer. */
interface Matrix {
  readonly data: TypedArray;
  readonly at: number;
  readonly row: number;
  readonly column: number;
}

/** sums[j] = sum_k row[k] b[k][j], where the rows of b are contiguous: adds four rows of b at a time. */
function combineRows(row: Float64Array, b: Matrix, sums: Float64Array): void {
  const { data } = b;
  const [depth, columns] = [row.length, sums.length];
  sums.fill(0);
  let k = 0;
  for (; k + 3 < depth; k += 4) {
    const [r0, r1, r2, r3] = [row[k], row[k + 1], row[k + 2], row[k + 3]];
    const p0 = b.at + k * b.row;
    const p1 = p0 + b.row;
    const p2 = p1 + b.row;
    const p3 = p2 + b.row;
    for (let j = 0; j < columns; j++) {
      sums[j] += r0 * data[p0 + j] + r1 * data[p1 + j] + r2 * data[p2 + j] + r3 * data[p3 + j];
    }
  }
  for (; k < depth; k++) {
    const r = row[k];
    const p = b.at + k * b.row;
    for (let j = 0; j < columns; j++) sums[j] += r * data[p + j];
  }
}

/** sums[j] = sum_k row[k] b[k][j], where the columns of b are contiguous: four dot products at a time. */
function dotColumns(row: Float64Array, b: Matrix, sums: Float64Array): void {
  const { data } = b;
  const [depth, columns] = [row.length, sums.length];
  let j = 0;
  for (; j + 3 < columns; j += 4) {
    const p0 = b.at + j * b.column;
    const p1 = p0 + b.column;
    const p2 = p1 + b.column;
    const p3 = p2 + b.column;
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let k = 0; k < depth; k++) {
      const r = row[k];
      s0 += r * data[p0 + k * b.row];
      s1 += r * data[p1 + k * b.row];
      s2 += r * data[p2 + k * b.row];
      s3 += r * data[p3 + k * b.row];
    }
    sums[j] = s0;
    sums[j + 1] = s1;
    sums[j + 2] = s2;
    sums[j + 3] = s3;
  }
  for (; j < columns; j++) {
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += row[k] * data[b.at + j * b.column + k * b.row];
    sums[j] = sum;
  }
}

export function matmul(a: View, b: View, out: View, { accumulate }: { readonly accumulate: boolean }): void {
  const [batch, rows, depth] = a.shape;
  const columns = b.shape[2];
  const [left, right, to] = [elements(a), elements(b), elements(out)];
  const product = b.strides[2] === 1 && columns > 1 ? combineRows : dotColumns;
  const row = new Float64Array(depth);
  const sums = new Float64Array(columns);
  for (let n = 0; n < batch; n++) {
    const matrix = { data: right, at: b.offset + n * b.strides[0], row: b.strides[1], column: b.strides[2] };
    for (let i = 0; i < rows; i++) {
      const from = a.offset + n * a.strides[0] + i * a.strides[1];
      for (let k = 0; k < depth; k++) row[k] = left[from + k * a.strides[2]];
      product(row, matrix, sums);
      const at = out.offset + n * out.strides[0] + i * out.strides[1];
      if (accumulate) for (let j = 0; j < columns; j++) to[at + j] += sums[j];
      else for (let j = 0; j < columns; j++) to[at + j] = sums[j];
    }
  }
}
