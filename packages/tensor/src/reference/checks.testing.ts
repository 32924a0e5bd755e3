// Layer: tests of the reference backend. Builds views (also rows sliced from a wider, poisoned buffer), runs a routine
// forward and backward on them, and compares gradients with central differences. Is no part of the package.

import { expect } from "vitest";
import { bytesPerElement, typedArray } from "../dtype.js";
import { contiguousStrides, sizeOf } from "../layout.js";
import type { View } from "../view.js";
import { ReferenceBuffer } from "./buffer.js";
import { floats } from "./views.js";

export interface Sample {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

export type Samples = Readonly<Record<string, Sample>>;

/** A repeatable stream of numbers, uniform in [-1, 1). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** A tensor of uniform numbers in [low, high). */
export function sample(next: () => number, shape: readonly number[], low = -1, high = 1): Sample {
  const values = Float64Array.from({ length: sizeOf(shape) }, () => low + ((next() + 1) / 2) * (high - low));
  return { shape, values };
}

export interface Placement {
  readonly dtype?: "f32" | "f64";
  /** Trailing axes that make one row; the rows then lie `gap` elements apart in a buffer with an offset. */
  readonly inner?: number;
  readonly gap?: number;
}

/** A view of a new buffer full of NaN, holding `values` if given. */
export function place(shape: readonly number[], values?: Float64Array, placement: Placement = {}): View {
  const { dtype = "f64", inner = shape.length, gap = 0 } = placement;
  const lead = shape.length - inner;
  const width = sizeOf(shape.slice(lead));
  const rows = sizeOf(shape.slice(0, lead));
  const offset = gap === 0 ? 0 : 3;
  const strides = [
    ...contiguousStrides(shape.slice(0, lead)).map((s) => s * (width + gap)),
    ...contiguousStrides(shape.slice(lead)),
  ];
  const memory = new ArrayBuffer((offset + rows * (width + gap)) * bytesPerElement[dtype]);
  const view: View = { buffer: new ReferenceBuffer(memory), dtype, shape, strides, offset };
  const data = floats(view).fill(Number.NaN);
  if (values !== undefined) {
    for (let r = 0; r < rows; r++) data.set(values.subarray(r * width, (r + 1) * width), offset + r * (width + gap));
  }
  return view;
}

/** A contiguous i32 view. */
export function placeInts(shape: readonly number[], values: readonly number[]): View {
  const buffer = new ReferenceBuffer(new ArrayBuffer(4 * values.length));
  typedArray("i32", buffer.memory, 0, values.length).set(values);
  return { buffer, dtype: "i32", shape, strides: contiguousStrides(shape), offset: 0 };
}

/** Where in its buffer the i-th element of a view lies. */
function positionOf({ shape, strides, offset }: View, i: number): number {
  let at = offset;
  for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
    at += (rest % shape[axis]) * strides[axis];
    rest = Math.floor(rest / shape[axis]);
  }
  return at;
}

/** The elements of a float view in row-major order. */
export function valuesOf(view: View): Float64Array {
  const data = floats(view);
  return Float64Array.from({ length: sizeOf(view.shape) }, (_, i) => data[positionOf(view, i)]);
}

/** rms(x - y) / rms(y), or rms(x - y) where rms(y) < 1e-6. */
export function relativeError(x: Float64Array, y: Float64Array): number {
  if (x.length !== y.length) return Number.NaN;
  let squares = 0;
  let differences = 0;
  for (let i = 0; i < x.length; i++) {
    squares += y[i] * y[i];
    differences += (x[i] - y[i]) * (x[i] - y[i]);
  }
  const rms = Math.sqrt(squares / y.length);
  const error = Math.sqrt(differences / y.length);
  return y.length === 0 ? 0 : rms < 1e-6 ? error : error / rms;
}

export function expectClose(name: string, x: Sample, y: Sample, tolerance: number): void {
  expect(x.shape, name).toEqual(y.shape);
  expect(relativeError(x.values, y.values), name).toBeLessThan(tolerance);
}

// A kernel of any inputs, outputs and options: what `never` is passed to.
type AnyKernel = (inputs: never, outputs: never, options: never) => void;

/** A routine with the shapes of its outputs; `rows` tells how many trailing axes of a tensor are one row. */
export interface Routine {
  readonly forward: AnyKernel;
  readonly backward: AnyKernel;
  readonly options: object;
  readonly outputs: Readonly<Record<string, readonly number[]>>;
  readonly saved: Readonly<Record<string, readonly number[]>>;
  readonly rows: Readonly<Record<string, number>>;
  /** Integer inputs. */
  readonly fixed?: Readonly<Record<string, View | undefined>>;
}

export interface RunOptions {
  readonly dtype?: "f32" | "f64";
  /** Lay rows out with this gap between them. */
  readonly gap?: number;
  /** Inputs hold NaN, so outputs may, and it cannot be told whether they were written. */
  readonly poisoned?: boolean;
}

function placer(routine: Routine, { dtype = "f64", gap = 0 }: RunOptions) {
  return (name: string, shape: readonly number[], values?: Float64Array): View => {
    const inner = routine.rows[name] ?? routine.rows[name.slice(1)];
    return place(shape, values, inner === undefined ? { dtype } : { dtype, inner, gap });
  };
}

/** Checks that all of a view was written, and nothing between its rows. */
function expectWritten(name: string, view: View): void {
  let written = 0;
  for (const value of floats(view)) if (!Number.isNaN(value)) written++;
  expect(written, `elements of ${name} that are written`).toBe(sizeOf(view.shape));
}

function toSamples(views: Readonly<Record<string, View>>): Samples {
  return Object.fromEntries(
    Object.entries(views).map(([name, view]) => [name, { shape: view.shape, values: valuesOf(view) }]),
  );
}

type Views = Readonly<Record<string, View | undefined>>;

function placeInputs(routine: Routine, samples: Samples, run: RunOptions): Views {
  const put = placer(routine, run);
  const views: Record<string, View | undefined> = { ...routine.fixed };
  for (const [name, { shape, values }] of Object.entries(samples)) views[name] = put(name, shape, values);
  return views;
}

function placeOutputs(routine: Routine, shapes: Routine["outputs"], run: RunOptions): Readonly<Record<string, View>> {
  const put = placer(routine, run);
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, put(name, shape)]));
}

/** Outputs of the forward kernel, the saved ones included. */
export function runForward(routine: Routine, inputs: Samples, run: RunOptions = {}): Samples {
  const outputs = placeOutputs(routine, { ...routine.outputs, ...routine.saved }, run);
  routine.forward(placeInputs(routine, inputs, run) as never, outputs as never, routine.options as never);
  if (!run.poisoned) for (const [name, view] of Object.entries(outputs)) expectWritten(name, view);
  return toSamples(outputs);
}

/** Gradients of all inputs, under the names `d<input>`, from those of the outputs (`upstream`, as `d<output>`). */
export function runBackward(routine: Routine, inputs: Samples, upstream: Samples, run: RunOptions = {}): Samples {
  const forward = runForward(routine, inputs, run);
  const saved = Object.fromEntries(Object.keys(routine.saved).map((name) => [name, forward[name]]));
  const given = placeInputs(routine, { ...inputs, ...saved, ...upstream }, run);
  const shapes = Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [`d${name}`, shape]));
  const gradients = placeOutputs(routine, shapes, run);
  routine.backward(given as never, gradients as never, routine.options as never);
  if (!run.poisoned) for (const [name, view] of Object.entries(gradients)) expectWritten(name, view);
  return toSamples(gradients);
}

/** Random gradients of the outputs. */
export function upstreamOf(routine: Routine, next: () => number): Samples {
  const entries = Object.entries(routine.outputs).map(([name, shape]) => [`d${name}`, sample(next, shape)]);
  return Object.fromEntries(entries);
}

/** Compares every gradient with central differences of sum(upstream * output), all in float64. */
export function expectGradients(routine: Routine, inputs: Samples, upstream: Samples, run: RunOptions = {}): void {
  const given = placeInputs(routine, inputs, run);
  const outputs = placeOutputs(routine, { ...routine.outputs, ...routine.saved }, run);
  const loss = (): number => {
    routine.forward(given as never, outputs as never, routine.options as never);
    let sum = 0;
    for (const [name, d] of Object.entries(upstream)) {
      const data = valuesOf(outputs[name.slice(1)]);
      for (let i = 0; i < data.length; i++) sum += d.values[i] * data[i];
    }
    return sum;
  };
  const gradients = runBackward(routine, inputs, upstream, run);
  const step = 1e-5;
  for (const [name, { values }] of Object.entries(inputs)) {
    const view = given[name] as View;
    const data = floats(view);
    const expected = values.map((value, i) => {
      const at = positionOf(view, i);
      data[at] = value + step;
      const above = loss();
      data[at] = value - step;
      const below = loss();
      data[at] = value;
      return (above - below) / (2 * step);
    });
    expect(relativeError(gradients[`d${name}`].values, expected), `d${name}`).toBeLessThan(1e-7);
  }
}

/** Compares every tensor of `expected` with the one of that name. */
export function expectSamples(actual: Samples, expected: Samples, tolerance: number): void {
  for (const [name, value] of Object.entries(expected)) expectClose(name, actual[name], value, tolerance);
}

/** Tokens from `start` to `end` of row b of a (B, L, ...) tensor, as (1, end - start, ...). */
export function sliceTokens({ shape, values }: Sample, b: number, start: number, end: number): Sample {
  const width = sizeOf(shape.slice(2));
  const at = b * shape[1] * width;
  return { shape: [1, end - start, ...shape.slice(2)], values: values.slice(at + start * width, at + end * width) };
}

/** Row b of a (B, ...) tensor, as (1, ...). */
export function sliceRow({ shape, values }: Sample, b: number): Sample {
  const width = sizeOf(shape.slice(1));
  return { shape: [1, ...shape.slice(1)], values: values.slice(b * width, (b + 1) * width) };
}

/** Axes in another order. */
export function transpose({ shape, values }: Sample, axes: readonly number[]): Sample {
  const strides = contiguousStrides(shape);
  const view = place(shape, values);
  const order: View = { ...view, shape: axes.map((a) => shape[a]), strides: axes.map((a) => strides[a]) };
  return { shape: order.shape, values: valuesOf(order) };
}

/** The sum of the tensors of each name. */
export function addUp(parts: readonly Samples[]): Samples {
  const total: Record<string, Sample> = {};
  for (const part of parts) {
    for (const [name, { shape, values }] of Object.entries(part)) {
      const before = total[name];
      total[name] = { shape, values: before === undefined ? values : values.map((v, i) => v + before.values[i]) };
    }
  }
  return total;
}
