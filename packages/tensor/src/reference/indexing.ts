// Layer: reference backend. Rows by index, their scattered sum, and random numbers by counter.
// Knows memory and Philox. Knows no shape rule and no gradient.

import { philox4x32 } from "@diffmamba/random";
import type { RandomOptions } from "../backend.js";
import { ValueError } from "../errors.js";
import { sizeOf } from "../layout.js";
import type { View } from "../view.js";
import { elements } from "./strided.js";

function checkIndex(op: string, index: number, position: number, rows: number): void {
  if (index >= 0 && index < rows) return;
  throw new ValueError(`${op}: index ${index} at position ${position} is outside the table's ${rows} rows.`);
}

export function gather(table: View, index: View, out: View): void {
  const [rows, columns] = table.shape;
  const [from, which, to] = [elements(table), elements(index), elements(out)];
  for (let r = 0; r < index.shape[0]; r++) {
    const i = which[index.offset + r];
    checkIndex("gather", i, r, rows);
    const start = table.offset + i * columns;
    to.set(from.subarray(start, start + columns), out.offset + r * columns);
  }
}

export function scatterAdd(index: View, src: View, out: View): void {
  const [rows, columns] = out.shape;
  const [which, from, to] = [elements(index), elements(src), elements(out)];
  to.fill(0, out.offset, out.offset + rows * columns);
  for (let r = 0; r < index.shape[0]; r++) {
    const i = which[index.offset + r];
    checkIndex("scatterAdd", i, r, rows);
    const [source, target] = [src.offset + r * columns, out.offset + i * columns];
    for (let j = 0; j < columns; j++) to[target + j] += from[source + j];
  }
}

export function random(out: View, step: View, { kind, key, threshold = 0 }: RandomOptions): void {
  const to = elements(out);
  const at = elements(step)[step.offset] >>> 0;
  const size = sizeOf(out.shape);
  const block = new Uint32Array(4);
  for (let i = 0; i < size; i++) {
    if (i % 4 === 0) philox4x32([i >>> 2, 0, at, 0], key, block);
    const word = block[i % 4];
    to[out.offset + i] = kind === "bits" ? word : word >= threshold ? 1 : 0;
  }
}
