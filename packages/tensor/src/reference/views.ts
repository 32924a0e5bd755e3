// Layer: reference backend. How the routines read and write views: rows as doubles, whole parameters as doubles, and
// where the sequences of packed and padded rows begin and end. Every store rounds once, to the view's own type.
// Knows layouts and memory; knows no routine.

import { BackendError, DTypeError, formatShape, ShapeError } from "../errors.js";
import { isContiguous, rowPitch, sizeOf } from "../layout.js";
import type { View } from "../view.js";
import { ReferenceBuffer } from "./buffer.js";

export type Floats = Float32Array | Float64Array;

function memoryOf(view: View): ArrayBuffer {
  if (view.buffer instanceof ReferenceBuffer) return view.buffer.memory;
  throw new BackendError("reference: got a view of another backend's memory; copy the tensor to the reference first.");
}

/** The whole buffer of a float view; element `view.offset` is the view's first. @throws DTypeError unless f32 or f64 */
export function floats(view: View): Floats {
  const memory = memoryOf(view);
  if (view.dtype === "f32") return new Float32Array(memory, 0, Math.floor(memory.byteLength / 4));
  if (view.dtype === "f64") return new Float64Array(memory, 0, Math.floor(memory.byteLength / 8));
  throw new DTypeError(`reference: a routine computes in f32 or f64, got ${view.dtype}; convert the tensor first.`);
}

/** The elements of a contiguous i32 view, not copied. */
export function ints(name: string, view: View): Int32Array {
  if (view.dtype !== "i32") throw new DTypeError(`reference: ${name} must be i32, got ${view.dtype}.`);
  checkContiguous(name, view);
  return new Int32Array(memoryOf(view), 4 * view.offset, sizeOf(view.shape));
}

/** @throws ShapeError unless the view is contiguous */
export function checkContiguous(name: string, view: View): void {
  if (isContiguous(view)) return;
  throw new ShapeError(
    `reference: ${name} ${formatShape(view.shape)} has strides ${formatShape(view.strides)}; it must be contiguous.`,
  );
}

/** A copy of a contiguous float view as doubles. */
export function toDoubles(name: string, view: View): Float64Array {
  checkContiguous(name, view);
  const size = sizeOf(view.shape);
  return Float64Array.from(floats(view).subarray(view.offset, view.offset + size));
}

/** {@link toDoubles} of a view that may be absent. */
export function optionalDoubles(name: string, view: View | undefined): Float64Array | undefined {
  return view === undefined ? undefined : toDoubles(name, view);
}

/** Fills a contiguous float view, if there is one, from doubles. */
export function storeDoubles(name: string, view: View | undefined, from: Float64Array): void {
  if (view === undefined) return;
  checkContiguous(name, view);
  floats(view).set(from, view.offset);
}

/** The one number of a () or (1,) float view. */
export function scalar(view: View): number {
  return floats(view)[view.offset];
}

/** A float view as rows: the last `inner` axes are one row, contiguous; the axes before step by one pitch. */
export class Rows {
  readonly data: Floats;
  readonly offset: number;
  readonly pitch: number;
  readonly width: number;
  readonly count: number;

  /** @throws ShapeError when no one pitch leads from row to row */
  constructor(name: string, view: View, inner: number) {
    const pitch = rowPitch(view, inner);
    if (pitch === undefined) {
      throw new ShapeError(
        `reference: ${name} ${formatShape(view.shape)} has strides ${formatShape(view.strides)}; ` +
          `the last ${inner} axes must be contiguous and the others step by one pitch.`,
      );
    }
    this.data = floats(view);
    this.offset = view.offset;
    this.pitch = pitch;
    this.width = sizeOf(view.shape.slice(view.shape.length - inner));
    this.count = sizeOf(view.shape.slice(0, view.shape.length - inner));
  }

  get(row: number, column: number): number {
    return this.data[this.offset + row * this.pitch + column];
  }

  set(row: number, column: number, value: number): void {
    this.data[this.offset + row * this.pitch + column] = value;
  }

  /** Copies `length` elements of a row, from `column` on, to doubles, from `at` on; by default a whole row. */
  load(row: number, into: Float64Array, column = 0, at = 0, length = this.width - column): void {
    const { data } = this;
    const start = this.offset + row * this.pitch + column;
    for (let i = 0; i < length; i++) into[at + i] = data[start + i];
  }

  /** Writes `length` doubles, from `at` on, to a row, from `column` on; by default a whole row. */
  store(row: number, from: Float64Array, column = 0, at = 0, length = this.width - column): void {
    const { data } = this;
    const start = this.offset + row * this.pitch + column;
    for (let i = 0; i < length; i++) data[start + i] = from[at + i];
  }

  /** Writes zeros to the rows from `start` up to `end`. */
  clear(start: number, end: number): void {
    for (let row = start; row < end; row++) {
      const at = this.offset + row * this.pitch;
      this.data.fill(0, at, at + this.width);
    }
  }
}

/** {@link Rows} of a view that may be absent. */
export function optionalRows(name: string, view: View | undefined, inner: number): Rows | undefined {
  return view === undefined ? undefined : new Rows(name, view, inner);
}

/** How many tokens of each row of `length` are no padding, from `lengths` (B,); all of them without it. */
export function rowLengths(lengths: View | undefined, batch: number, length: number): Int32Array {
  const ends = new Int32Array(batch).fill(length);
  if (lengths === undefined) return ends;
  const given = ints("lengths", lengths);
  for (let b = 0; b < batch; b++) ends[b] = Math.min(Math.max(given[b], 0), length);
  return ends;
}

/**
 * Where the sequence of each token begins, (B * L): the last position up to t at which `seqIdx` (B, L) changed, or 0.
 * Token t therefore begins a sequence where its entry is t; only at t = 0 does that sequence have an initial state.
 */
export function sequenceStarts(seqIdx: View | undefined, batch: number, length: number): Int32Array {
  const starts = new Int32Array(batch * length);
  if (seqIdx === undefined) return starts;
  const index = ints("seqIdx", seqIdx);
  for (let b = 0; b < batch; b++) {
    for (let t = 1; t < length; t++) {
      const at = b * length + t;
      starts[at] = index[at] === index[at - 1] ? starts[at - 1] : t;
    }
  }
  return starts;
}

/** 1 / (1 + e^-x) */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** x sigmoid(x) */
export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** d silu(x) / dx */
export function siluGradient(x: number): number {
  const s = 1 / (1 + Math.exp(-x));
  return s * (1 + x * (1 - s));
}

/** log(1 + e^x), without overflow. */
export function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}
