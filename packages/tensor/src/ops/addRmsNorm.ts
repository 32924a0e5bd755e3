// A residual sum with its RMSNorm (Zhang and Sennrich 2019, eq. 4) in one pass, forward and backward: what stands between two
// layers of a pre-norm stack. The residual stream may be f32 beside bf16 or f16 layers.
// Knows shapes, types and what is saved. Knows no loop, no backend and no layer.

import { BackendError, DTypeError, formatShape, ShapeError } from "../errors.js";
import { rowPitch, sizeOf } from "../layout.js";
import { floats, needsFloat, type OpSpec, sameDevice, sameType, statisticsType, viewAs } from "../op.js";
import { expectShape } from "../routine.js";
import { record } from "../tape.js";
import type { Tensor } from "../tensor.js";

const op = "addRmsNorm";

/** Rows of the last axis, as the kernel takes them; the tensor's layout must have one pitch. */
function rows(x: Tensor) {
  const [count, width] = [sizeOf(x.shape.slice(0, -1)), x.dim(-1)];
  return viewAs(x.view(), [count, width], [rowPitch(x, 1) ?? width, 1]);
}

/** The tensor itself if its rows have one pitch, else a contiguous copy (an op, so gradients flow). */
function withRows(x: Tensor): Tensor {
  return rowPitch(x, 1) === undefined ? x.contiguous() : x;
}

function kernels(x: Tensor) {
  const { kernels, name } = x.device.backend;
  const { addRmsNorm: forward, addRmsNormBackward: backward } = kernels;
  if (forward === undefined || backward === undefined) {
    throw new BackendError(`${op}: the backend ${name} has no such kernel.`);
  }
  return { forward: forward.bind(kernels), backward: backward.bind(kernels) };
}

function check(x: Tensor, y: Tensor | undefined, weight: Tensor): void {
  sameDevice(op, x, y, weight);
  needsFloat(op, x, "x");
  needsFloat(op, weight, "the weight");
  if (x.rank < 1) throw new ShapeError(`${op}: x is a single number; it needs an axis of channels.`);
  expectShape(op, "weight", weight, [x.dim(-1)]);
  if (y !== undefined) {
    expectShape(op, "y", y, x.shape);
    sameType(op, y, weight);
  }
  if (x.dtype !== weight.dtype && x.dtype !== statisticsType(weight.dtype)) {
    throw new DTypeError(
      `${op}: the residual x ${formatShape(x.shape)} is ${x.dtype}; beside a weight of ${weight.dtype} it must be that or ${statisticsType(weight.dtype)}.`,
    );
  }
}

/** normed and rstd of x, or of x + y into `sum`. */
function forward(x: Tensor, y: Tensor | undefined, weight: Tensor, sum: Tensor | undefined, eps: number) {
  const normed = x.device.empty(x.shape, weight.dtype);
  const rstd = x.device.empty([sizeOf(x.shape.slice(0, -1))], statisticsType(x.dtype));
  if (x.size > 0) {
    kernels(x).forward(
      { x: rows(x), weight: weight.view(), ...(y && { y: rows(y) }) },
      { normed: rows(normed), rstd: rstd.view(), ...(sum && { sum: rows(sum) }) },
      { eps },
    );
  }
  return { normed, rstd };
}

/**
 * x, y (..., D), weight (D,) -> sum = x + y of x's type, and normed = RMSNorm(sum) of the weight's; y has the weight's type, x
 * that or f32. Without y, sum is x itself.
 * @throws ShapeError, DTypeError
 */
export function addRmsNorm(
  x: Tensor,
  y: Tensor | undefined,
  weight: Tensor,
  { eps = 1e-5 }: { readonly eps?: number } = {},
): { readonly sum: Tensor; readonly normed: Tensor } {
  check(x, y, weight);
  const left = withRows(x);
  const right = y && withRows(y);
  const scale = weight.contiguous();
  const added = right && left.device.empty(left.shape, left.dtype);
  const { normed, rstd } = forward(left, right, scale, added, eps);
  const sum = added ?? left;
  record({
    name: op,
    inputs: [left, ...(right ? [right] : []), scale],
    outputs: added ? [normed, added] : [normed],
    save: [sum, scale, rstd],
    backward: ([dnormed, dsum], [whole, w, r], sink) => {
      const one = right === undefined || right.dtype === left.dtype;
      // A gradient that serves for both is not written into the place of either.
      const both = right !== undefined && one && sink.needs(1);
      const dx = both ? whole.device.empty(whole.shape, whole.dtype) : sink.needs(0) ? sink.place(0) : undefined;
      const dy = !one && sink.needs(1) ? sink.place(1) : undefined;
      const last = right === undefined ? 1 : 2;
      const dweight = sink.needs(last) ? sink.place(last) : undefined;
      const inRows = (gradient: Tensor) => rows(withRows(gradient));
      if (whole.size > 0) {
        kernels(whole).backward(
          {
            sum: rows(whole),
            weight: w.view(),
            rstd: r.view(),
            ...(dsum && { dsum: inRows(dsum) }),
            ...(dnormed && { dnormed: inRows(dnormed) }),
          },
          { ...(dx && { dx: rows(dx) }), ...(dy && { dy: rows(dy) }), ...(dweight && { dweight: dweight.view() }) },
          { eps },
        );
      } else dweight?.fillInPlace(0);
      return right === undefined ? [dx, dweight] : [dx, one ? dx : dy, dweight];
    },
    // The sum is held, as this op saves it; the norm is made again from it.
    recompute: ([whole, w]) => {
      const again = forward(whole, undefined, w, undefined, eps);
      again.rstd.dispose();
      return added ? [again.normed, whole.alias()] : [again.normed];
    },
  });
  rstd.dispose();
  return { sum, normed };
}

export const specs: readonly OpSpec[] = [
  {
    name: op,
    kind: "routine",
    dtypes: floats,
    accumulates: "f32",
    gradients: ["x", "y", "weight"],
    saves: "sum, weight, rstd; normed is made again for who saves it",
  },
];
