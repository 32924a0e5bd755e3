// Matrix products: `matmul` with NumPy's broadcasting of leading axes, and `linear`, x W^T with the weight's own gradient layout.
// Knows shapes, which layouts the kernel takes, and the gradients. Knows no loop.

import { isHalf } from "../dtype.js";
import { formatShape, ShapeError } from "../errors.js";
import { broadcastShapes, broadcastTo, reshapeStrides, rowPitch, sizeOf } from "../layout.js";
import { floats, needsFloat, type OpSpec, sameDevice, sameType } from "../op.js";
import { expectShape } from "../routine.js";
import { scope } from "../scope.js";
import { type GradientSink, noGrad, record } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { View } from "../view.js";
import { contiguous, contiguousCopy } from "./copy.js";
import { sumTo } from "./reduce.js";
import { transpose } from "./views.js";

function check(op: string, a: Tensor, b: Tensor, inner: number): void {
  sameDevice(op, a, b);
  needsFloat(op, a);
  sameType(op, a, b);
  const what = `${op}: ${formatShape(a.shape)} x ${formatShape(b.shape)}`;
  if (a.rank < 2 || b.rank < 2) {
    throw new ShapeError(`${what}: both need two axes or more; reshape a vector to a row or a column.`);
  }
  const [columns, rows] = [a.dim(-1), b.dim(inner)];
  if (columns === rows) return;
  const hint = columns === b.dim(inner === -1 ? -2 : -1) ? " Transpose the second?" : "";
  const sizes = `the first has ${columns} columns, the second ${rows} ${inner === -1 ? "columns" : "rows"}.${hint}`;
  throw new ShapeError(`${op}: inner sizes differ: ${formatShape(a.shape)} x ${formatShape(b.shape)}; ${sizes}`);
}

/** x itself if each of its matrices has one contiguous axis and a pitch in the other, else a copy. */
function matrices(x: Tensor): Tensor {
  const [m, n] = [x.dim(-2), x.dim(-1)];
  const [row, column] = [x.strides[x.rank - 2], x.strides[x.rank - 1]];
  const byRows = (column === 1 || n === 1) && (row >= n || m === 1);
  const byColumns = (row === 1 || m === 1) && (column >= m || n === 1);
  return byRows || byColumns ? x : contiguousCopy(x);
}

/** (…, C) as one matrix (R, C) of all rows: a view, or a copy where strides cannot tell it. */
function asRows(x: Tensor): Tensor {
  const columns = x.dim(-1);
  const rows = x.size / Math.max(columns, 1);
  if (x.rank === 2) return matrices(x);
  const pitch = rowPitch(x, 1);
  if (pitch === undefined) return asRows(contiguousCopy(x));
  return x.withLayout({ shape: [rows, columns], strides: [pitch, 1], offset: x.offset });
}

/** (…, M, N) as (batch, M, N), broadcast: a view, or a copy where strides cannot tell it. */
function asBatch(x: Tensor, batch: readonly number[]): View {
  const source = matrices(x);
  const [m, n] = source.shape.slice(-2);
  const wide = broadcastTo("matmul", source, [...batch, m, n]);
  const lead = { shape: batch, strides: wide.strides.slice(0, -2), offset: 0 };
  const count = sizeOf(batch);
  const strides = reshapeStrides(lead, [count]);
  if (strides === undefined)
    return { ...contiguousCopy(source.withLayout(wide)).view(), shape: [count, m, n], strides: [m * n, n, 1] };
  return {
    ...source.view(),
    shape: [count, m, n],
    strides: [...strides, ...wide.strides.slice(-2)],
    offset: wide.offset,
  };
}

function single(x: Tensor): View {
  const view = x.view();
  return { ...view, shape: [1, ...view.shape], strides: [0, ...view.strides] };
}

/** out = a x b, or out += a x b, where `out` has a contiguous last axis and one row pitch. */
function multiply(
  a: Tensor,
  b: Tensor,
  out: Tensor,
  { accumulate = false, bias }: { readonly accumulate?: boolean | undefined; readonly bias?: View } = {},
): Tensor {
  const { kernels } = out.device.backend;
  if (out.size === 0) return out;
  if (a.dim(-1) === 0) {
    if (!accumulate) out.fillInPlace(0);
    return out;
  }
  const options = { accumulate, ...(bias && { bias }) };
  noGrad(() =>
    scope(() => {
      if (b.rank === 2) {
        kernels.matmul(single(asRows(a)), single(matrices(b)), single(asRows(out)), options);
      } else {
        const batch = out.shape.slice(0, -2);
        kernels.matmul(asBatch(a, batch), asBatch(b, batch), asBatch(out, batch), options);
      }
    }),
  );
  return out;
}

/**
 * out = a x b, or, with `accumulate`, out += a x b, outside a tape: (M, K) x (K, N) -> (M, N). Where a and b are bf16 or f16, `out`
 * may be f32. For ops whose gradients are sums of products.
 */
export function multiplyInto(a: Tensor, b: Tensor, out: Tensor, options: { readonly accumulate?: boolean } = {}): void {
  multiply(a, b, out, options);
  out.storage.version++;
}

/**
 * out = x W^T, outside a tape: x (R, I), weight (O, I), out (R, O). Where x is bf16 or f16, `out` may be f32: its sums are then not
 * rounded on the way. @throws ShapeError, DTypeError
 */
export function linearInto(x: Tensor, weight: Tensor, out: Tensor): void {
  check("linearInto", x, weight, -1);
  sameDevice("linearInto", x, out);
  expectShape("linearInto", "out", out, [...x.shape.slice(0, -1), weight.dim(0)]);
  if (!(isHalf(x.dtype) && out.dtype === "f32")) sameType("linearInto", x, out);
  noGrad(() => scope(() => multiplyInto(x, transpose(weight, 0, 1), out)));
}

/** All rows of `a`, transposed, times all rows of `b`: the gradient of a weight. (R, M), (R, N) -> (M, N) */
function multiplyRows(a: Tensor, b: Tensor, out: Tensor, accumulate = false): Tensor {
  return scope(() => multiply(transpose(asRows(a), 0, 1), asRows(b), out, { accumulate }));
}

/** {@link multiplyRows} as the gradient of input 1, or nothing where it was added to the sum that is asked for. */
function weightGradient(sink: GradientSink, a: Tensor, b: Tensor): Tensor | undefined {
  if (!sink.needs(1)) return undefined;
  const sum = sink.sum(1);
  if (sum === undefined) return multiplyRows(a, b, sink.place(1));
  multiplyRows(a, b, sum, true);
  sum.storage.version++;
  return undefined;
}

/** (..., M, K) x (..., K, N) -> (..., M, N). @throws ShapeError, DTypeError */
export function matmul(a: Tensor, b: Tensor): Tensor {
  check("matmul", a, b, -2);
  const batch = broadcastShapes("matmul", a.shape.slice(0, -2), b.shape.slice(0, -2));
  const out = multiply(a, b, a.device.empty([...batch, a.dim(-2), b.dim(-1)], a.dtype));
  const shapes = [a.shape, b.shape];
  record({
    name: "matmul",
    inputs: [a, b],
    outputs: [out],
    save: [a, b],
    backward: ([dy], [left, right], sink) => {
      if (dy === undefined) return [];
      const flat = right.rank === 2;
      const da = !sink.needs(0)
        ? undefined
        : flat
          ? multiply(dy, transpose(right, 0, 1), sink.place(0))
          : matmul(dy, transpose(right, -1, -2));
      const db = flat
        ? weightGradient(sink, left, dy)
        : sink.needs(1)
          ? matmul(transpose(left, -1, -2), dy)
          : undefined;
      return [da && sumTo(da, shapes[0]), db && sumTo(db, shapes[1])];
    },
  });
  return out;
}

/** out += bias, for every row. */
function addBias(out: Tensor, bias: Tensor): void {
  const { shape, strides, offset } = broadcastTo("linear", bias, out.shape);
  const wide = { ...bias.view(), shape, strides, offset };
  if (out.size > 0) out.device.backend.kernels.binary("add", out.view(), wide, out.view());
}

/**
 * x W^T + b: x (..., I), weight (O, I), bias (O,) -> (..., O); the layout of a linear layer's weight. A backend that can adds the bias
 * within the product, in f32. @throws ShapeError, DTypeError
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  check("linear", x, weight, -1);
  if (weight.rank !== 2)
    throw new ShapeError(`linear: the weight is ${formatShape(weight.shape)}; it must be (out, in).`);
  if (bias !== undefined) {
    sameDevice("linear", x, bias);
    sameType("linear", x, bias);
    if (bias.rank !== 1 || bias.dim(0) !== weight.dim(0))
      throw new ShapeError(
        `linear: the bias is ${formatShape(bias.shape)}; it must be (${weight.dim(0)}), as the output.`,
      );
  }
  const out = x.device.empty([...x.shape.slice(0, -1), weight.dim(0)], x.dtype);
  const within = bias !== undefined && Boolean(x.device.backend.addsBias) && x.dim(-1) > 0;
  noGrad(() =>
    scope(() => {
      const added = within ? { bias: contiguous(bias).view() } : {};
      multiply(x, transpose(weight, 0, 1), out, added);
      if (bias !== undefined && !within) addBias(out, bias);
    }),
  );
  record({
    name: "linear",
    inputs: bias === undefined ? [x, weight] : [x, weight, bias],
    outputs: [out],
    save: [x, weight],
    backward: ([dy], [input, w], sink) => {
      if (dy === undefined) return [];
      return [
        sink.needs(0) ? multiply(dy, w, sink.place(0)) : undefined,
        weightGradient(sink, dy, input),
        ...(bias === undefined ? [] : [sink.needs(2) ? sumTo(dy, [w.dim(0)]) : undefined]),
      ];
    },
  });
  return out;
}

export const specs: readonly OpSpec[] = [
  { name: "matmul", kind: "primitive", dtypes: floats, accumulates: "f32", gradients: ["a", "b"], saves: "a, b" },
  {
    name: "linear",
    kind: "primitive",
    dtypes: floats,
    accumulates: "f32",
    gradients: ["x", "weight", "bias"],
    saves: "x, weight",
  },
];
