// Layer: CUDA kernels. unary, binary, compare, where, copy, fill and iota: which form of their kernels suits the layouts at hand.
// Knows layouts and native/kernels/elementwise.cu. Knows no formula.

import {
  type BinaryOp,
  bytesPerElement,
  type CompareOp,
  type DType,
  f32ToBf16Array,
  f32ToF16Array,
  isContiguous,
  type Kernels,
  sizeOf,
  type UnaryOp,
  type View,
} from "@diffmamba/tensor";
import { i32, type KernelContext, pointer } from "../context.js";
import { axesArgument, walkOf } from "./axes.js";

const THREADS = 256;

// The numbers of native/kernels/elementwise.cu.
const unaryOps: readonly UnaryOp[] = [
  "neg",
  "abs",
  "sign",
  "exp",
  "log",
  "sqrt",
  "rsqrt",
  "square",
  "reciprocal",
  "sigmoid",
  "tanh",
  "softplus",
  "silu",
  "erf",
];
const binaryOps: readonly BinaryOp[] = ["add", "sub", "mul", "div", "max", "min", "pow"];
const compareOps: readonly CompareOp[] = ["eq", "lt", "le"];

/** Elements in 16 bytes. */
const vectorOf = (dtype: DType): number => 16 / bytesPerElement[dtype];

/** The kernels that only move bits have one form for each size. */
const bitsOf = (dtype: DType): string => `bits${8 * bytesPerElement[dtype]}`;

/** Elements of a vector where two types meet, as in the list of native/kernels/elementwise.cu. */
function vectorOfBoth(from: DType, to: DType): number {
  return bytesPerElement[from] === 4 || bytesPerElement[to] === 4 ? 4 : 8;
}

/** The bits of a number as an element of a type. */
export function bitsOfValue(value: number, dtype: DType): number {
  switch (dtype) {
    case "bf16":
      return f32ToBf16Array([value])[0];
    case "f16":
      return f32ToF16Array([value])[0];
    case "f32":
      return new Int32Array(Float32Array.of(value).buffer)[0];
    default:
      return Math.trunc(value) | 0;
  }
}

export const elementwiseKernels = (
  context: KernelContext,
): Pick<Kernels, "unary" | "binary" | "compare" | "where" | "copy" | "fill" | "iota"> => {
  /** Runs a kernel over views of one shape; its parameters are the inputs, the output, axes, items, and numbers. */
  const run = (
    name: string,
    width: number,
    out: View,
    inputs: readonly View[],
    ...numbers: readonly number[]
  ): void => {
    const walk = walkOf([out, ...inputs], width);
    if (walk.items === 0) return;
    context.launch({
      kernel: `${name}_v${walk.width}`,
      grid: Math.ceil(walk.items / THREADS),
      block: THREADS,
      overlap: true,
      args: [...inputs.map(pointer), pointer(out), axesArgument(walk.axes), i32(walk.items), ...numbers.map(i32)],
    });
  };

  return {
    unary: (op, x, out) => run(`unary_${x.dtype}`, vectorOf(x.dtype), out, [x], unaryOps.indexOf(op)),
    binary: (op, a, b, out) => run(`binary_${a.dtype}`, vectorOf(a.dtype), out, [a, b], binaryOps.indexOf(op)),
    compare: (op, a, b, out) => run(`compare_${a.dtype}`, vectorOf(a.dtype), out, [a, b], compareOps.indexOf(op)),
    where: (cond, a, b, out) => run(`where_${bitsOf(a.dtype)}`, vectorOf(a.dtype), out, [cond, a, b]),
    copy: (x, out) => {
      if (x.dtype === out.dtype) run(`copy_${bitsOf(x.dtype)}`, vectorOf(x.dtype), out, [x]);
      else run(`copy_${x.dtype}_${out.dtype}`, vectorOfBoth(x.dtype, out.dtype), out, [x]);
    },
    fill: (out, value) => {
      const bits = bitsOfValue(value, out.dtype);
      if (bits === 0 && isContiguous(out)) context.clear(out);
      else run(`fill_${bitsOf(out.dtype)}`, vectorOf(out.dtype), out, [], bits);
    },
    iota: (out) => {
      const count = sizeOf(out.shape);
      context.launch({
        kernel: "iota",
        grid: Math.ceil(count / THREADS),
        block: THREADS,
        args: [pointer(out), i32(count)],
      });
    },
  };
};
