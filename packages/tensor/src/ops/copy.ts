// Copies: contiguous, cast, clone, assign, take, fill.
// Knows layouts and the copy and fill kernels. Knows no other op.

import { bytesPerElement, type DType } from "../dtype.js";
import { DTypeError, LifetimeError } from "../errors.js";
import { broadcastTo } from "../layout.js";
import { allTypes, floats, type OpSpec, sameDevice } from "../op.js";
import { record } from "../tape.js";
import type { Tensor } from "../tensor.js";

/** A contiguous copy that no tape knows of. */
export function contiguousCopy(x: Tensor, dtype: DType = x.dtype): Tensor {
  const out = x.device.empty(x.shape, dtype);
  if (x.size > 0) x.device.backend.kernels.copy(x.view(), out.view());
  return out;
}

/** A copy with memory of its own, of the same type or another. */
export function clone(x: Tensor, dtype: DType = x.dtype): Tensor {
  const out = contiguousCopy(x, dtype);
  const from = x.dtype;
  record({ name: "copy", inputs: [x], outputs: [out], backward: ([dy]) => [dy && cast(dy, from)] });
  return out;
}

/** Itself if contiguous, else a copy that is. */
export function contiguous(x: Tensor): Tensor {
  return x.isContiguous() ? x : clone(x);
}

/** Itself if it has the type, else a converted copy. @throws DTypeError where the device lacks the type */
export function cast(x: Tensor, dtype: DType): Tensor {
  return x.dtype === dtype ? x : clone(x, dtype);
}

/** target = source, broadcast and converted, in place. */
export function assign(target: Tensor, source: Tensor): void {
  sameDevice("assign", target, source);
  const layout = broadcastTo("assign", source, target.shape);
  if (source.storage === target.storage) {
    throw new LifetimeError("assign: source and target share memory; clone the source first.");
  }
  if (target.size > 0) target.device.backend.kernels.copy({ ...source.view(), ...layout }, target.view());
  target.storage.version++;
}

/** True where nobody else shares the memory of `x`, and all of it is the elements of `x` in row-major order. */
function ownsWhole(x: Tensor): boolean {
  return x.storage.references === 1 && x.isContiguous() && x.storage.bytes === x.size * bytesPerElement[x.dtype];
}

/** target = source, as {@link assign}, but without a copy where the two can exchange their memory. */
export function take(target: Tensor, source: Tensor): void {
  const alike =
    target.dtype === source.dtype &&
    target.device === source.device &&
    target.shape.length === source.shape.length &&
    target.shape.every((n, i) => n === source.shape[i]);
  const moves = !target.storage.pinned && !source.storage.pinned;
  const exchanges = alike && moves && target.storage !== source.storage && ownsWhole(target) && ownsWhole(source);
  if (exchanges && !target.device.backend.recording) target.storage.exchange(source.storage);
  else assign(target, source);
}

/** All elements become `value`, in place. */
export function fill(target: Tensor, value: number): void {
  if (Number.isNaN(value) && !floats.includes(target.dtype)) {
    throw new DTypeError(`fill: NaN is no ${target.dtype}.`);
  }
  if (target.size > 0) target.device.backend.kernels.fill(target.view(), value);
  target.storage.version++;
}

export const specs: readonly OpSpec[] = [
  { name: "copy", kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: ["x"], saves: "nothing" },
  { name: "fill", kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: [], saves: "nothing" },
  { name: "iota", kind: "primitive", dtypes: ["i32"], accumulates: "none", gradients: [], saves: "nothing" },
];
