// Layer: reference backend. Elementwise kernels: each function is a line of a table, one loop walks them all.
// Knows strided memory. Knows no shape rule and no gradient.

import type { BinaryOp, CompareOp, UnaryOp } from "../backend.js";
import type { View } from "../view.js";
import { eachRun, elements } from "./strided.js";
import { sigmoid, silu, softplus } from "./views.js";

/** The error function to double precision: its series near 0, a continued fraction of erfc elsewhere. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z < 2) {
    // erf z = 2/sqrt(pi) e^{-z^2} sum_n 2^n z^{2n+1} / (2n+1)!! : all terms of one sign, no cancellation.
    let term = z;
    let sum = z;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * z * z) / (2 * n + 1);
      sum += term;
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
  }
  // erfc z = e^{-z^2} / sqrt(pi) * 1/(z + (1/2)/(z + 1/(z + (3/2)/(z + ...)))), evaluated from the inside.
  let fraction = z;
  for (let n = 60; n >= 1; n--) fraction = z + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-z * z) / (Math.sqrt(Math.PI) * fraction));
}

const unaryFunctions: Readonly<Record<UnaryOp, (x: number) => number>> = {
  neg: (x) => -x,
  abs: Math.abs,
  sign: Math.sign,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  square: (x) => x * x,
  reciprocal: (x) => 1 / x,
  sigmoid,
  tanh: Math.tanh,
  softplus,
  silu,
  erf,
};

const binaryFunctions: Readonly<Record<BinaryOp, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  max: Math.max,
  min: Math.min,
  pow: (a, b) => a ** b,
};

const compareFunctions: Readonly<Record<CompareOp, (a: number, b: number) => boolean>> = {
  eq: (a, b) => a === b,
  lt: (a, b) => a < b,
  le: (a, b) => a <= b,
};

export function unary(op: UnaryOp, x: View, out: View): void {
  const [from, to, f] = [elements(x), elements(out), unaryFunctions[op]];
  eachRun(out.shape, [x, out], ([i, o], [di, dO], n) => {
    for (let k = 0; k < n; k++) to[o + k * dO] = f(from[i + k * di]);
  });
}

function loop(f: (a: number, b: number) => number, a: View, b: View, out: View): void {
  const [left, right, to] = [elements(a), elements(b), elements(out)];
  eachRun(out.shape, [a, b, out], ([i, j, o], [di, dj, dO], n) => {
    for (let k = 0; k < n; k++) to[o + k * dO] = f(left[i + k * di], right[j + k * dj]);
  });
}

export function binary(op: BinaryOp, a: View, b: View, out: View): void {
  loop(binaryFunctions[op], a, b, out);
}

export function compare(op: CompareOp, a: View, b: View, out: View): void {
  const holds = compareFunctions[op];
  loop((x, y) => (holds(x, y) ? 1 : 0), a, b, out);
}

export function where(cond: View, a: View, b: View, out: View): void {
  const [test, left, right, to] = [elements(cond), elements(a), elements(b), elements(out)];
  eachRun(out.shape, [cond, a, b, out], ([c, i, j, o], [dc, di, dj, dO], n) => {
    for (let k = 0; k < n; k++) to[o + k * dO] = test[c + k * dc] ? left[i + k * di] : right[j + k * dj];
  });
}

export function copy(x: View, out: View): void {
  const [from, to] = [elements(x), elements(out)];
  eachRun(out.shape, [x, out], ([i, o], [di, dO], n) => {
    if (di === 1 && dO === 1) to.set(from.subarray(i, i + n), o);
    else for (let k = 0; k < n; k++) to[o + k * dO] = from[i + k * di];
  });
}

export function fill(out: View, value: number): void {
  const to = elements(out);
  eachRun(out.shape, [out], ([o], [dO], n) => {
    if (dO === 1) to.fill(value, o, o + n);
    else for (let k = 0; k < n; k++) to[o + k * dO] = value;
  });
}

export function iota(out: View): void {
  const to = elements(out);
  for (let i = 0; i < out.shape[0]; i++) to[out.offset + i] = i;
}
