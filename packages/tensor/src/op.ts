// How ops describe themselves, and the checks they share.
// An op is one file of ops/: its shape and type rule, its call, its gradient, and an `OpSpec` for whoever lists ops.
// Knows tensors and views. Knows no single op.

import { type DType, isFloat } from "./dtype.js";
import { BackendError, DTypeError } from "./errors.js";
import type { Tensor } from "./tensor.js";
import type { View } from "./view.js";

export const floats: readonly DType[] = ["f32", "f64", "bf16", "f16"];
export const allTypes: readonly DType[] = [...floats, "i32", "u8"];

/** What there is to know of an op besides its code. The conformance suite has a case for every one. */
export interface OpSpec {
  readonly name: string;
  /** Every backend has the primitives; a routine is a fused op with its own backward, which a backend may lack. */
  readonly kind: "primitive" | "routine";
  /** Element types of the main input. */
  readonly dtypes: readonly DType[];
  /** The type that sums are kept in; "none" where nothing is summed. f64 inputs are always summed in f64. */
  readonly accumulates: "f32" | "i32" | "none";
  /** Inputs that have gradients. */
  readonly gradients: readonly string[];
  /** What the tape keeps for backward, and what backward computes again. */
  readonly saves: string;
}

/** All inputs live on one device, and it is the first's. @throws BackendError */
export function sameDevice(op: string, first: Tensor, ...others: readonly (Tensor | undefined)[]): void {
  for (const other of others) {
    if (other !== undefined && other.device !== first.device) {
      throw new BackendError(
        `${op}: its tensors live on two devices, ${first.device.name} and ${other.device.name}; move one of them.`,
      );
    }
  }
}

/** Nothing is promoted silently. @throws DTypeError where the types differ */
export function sameType(op: string, a: Tensor, b: Tensor): void {
  if (a.dtype !== b.dtype) {
    throw new DTypeError(`${op}: the element types differ, ${a.dtype} and ${b.dtype}; cast one of them.`);
  }
}

/** @throws DTypeError unless the element type is a float */
export function needsFloat(op: string, x: Tensor, name = "its input"): void {
  if (!isFloat(x.dtype)) throw new DTypeError(`${op}: ${name} is ${x.dtype}; it takes floats.`);
}

/** @throws DTypeError unless the element type is i32 */
export function needsI32(op: string, x: Tensor, name: string): void {
  if (x.dtype !== "i32") throw new DTypeError(`${op}: ${name} is ${x.dtype}; it must be i32.`);
}

/** The type that statistics, states and losses of a value have: f32, or f64 with f64. */
export function statisticsType(dtype: DType): DType {
  return dtype === "f64" ? "f64" : "f32";
}

/** A view with another layout of the same elements. */
export function viewAs(view: View, shape: readonly number[], strides: readonly number[]): View {
  return { buffer: view.buffer, dtype: view.dtype, shape, strides, offset: view.offset };
}
