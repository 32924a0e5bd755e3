// Gradients of functions: a tape for the call, the function on it, and the way back.
// Knows tapes and leaves. Knows no op and no node.

import { runBackward, type Seed } from "./backward.js";
import { isFloat } from "./dtype.js";
import { formatShape, LifetimeError, ShapeError } from "./errors.js";
import { scope } from "./scope.js";
import { isRecording, onTape, Tape } from "./tape.js";
import type { Tensor } from "./tensor.js";

const zerosLike = ({ device, shape, dtype }: Tensor) => device.zeros(shape, dtype);

export interface GradOptions {
  /** Gradients from an earlier call, one per leaf or undefined: the new ones are added to them, in place. Those of bf16 and f16 may be f32. */
  readonly into?: readonly (Tensor | undefined)[];
}

/**
 * The value of `fn`, a tensor with one element, and its gradients with respect to `leaves`, in their order; zeros where
 * it does not depend on one. What `fn` makes on the way is freed as backward goes. There are no second-order gradients.
 * @throws ShapeError if the value has more than one element
 * @throws LifetimeError inside another call of itself, or if a value that a gradient needs was changed in place
 */
export function valueAndGrad(
  fn: () => Tensor,
  leaves: readonly Tensor[],
  options: GradOptions = {},
): { readonly value: Tensor; readonly gradients: Tensor[] } {
  if (isRecording()) {
    throw new LifetimeError("grad: called while another gradient is recorded; there are no second-order gradients.");
  }
  const tape = new Tape();
  for (const leaf of leaves) {
    if (!isFloat(leaf.dtype)) throw new ShapeError(`grad: a tensor of ${leaf.dtype} has no gradient.`);
    tape.tracked.add(leaf.id);
  }
  try {
    return scope(() => {
      const value = onTape(tape, () => scope(fn));
      if (value.size !== 1) {
        throw new ShapeError(
          `grad: the function's value is ${formatShape(value.shape)}; a gradient needs a single number.`,
        );
      }
      const sums = (options.into ?? []).flatMap((sum, i): Seed[] => (sum === undefined ? [] : [[leaves[i], sum]]));
      const one = value.device.full(value.shape, 1, value.dtype);
      const gradients = runBackward(tape, [[value, one]], leaves, sums);
      one.dispose();
      return { value, gradients: gradients.map((gradient, i) => gradient ?? zerosLike(leaves[i])) };
    });
  } finally {
    tape.release();
  }
}

/**
 * The function that gives [value, gradient with respect to each argument].
 * @example const [value, dw] = grad((w: Tensor) => w.square().sum())(w);
 */
export function grad<Args extends readonly Tensor[]>(
  fn: (...args: Args) => Tensor,
): (...args: Args) => [value: Tensor, ...gradients: { [K in keyof Args]: Tensor }] {
  return (...args) => {
    const { value, gradients } = valueAndGrad(() => fn(...args), args);
    return [value, ...gradients] as unknown as [Tensor, ...{ [K in keyof Args]: Tensor }];
  };
}
