// What every differential mixer ends with: (1 - lambda_init) RMSNorm(p) of the difference p (arXiv 2507.06204, eq. 21).
// Knows a norm and numbers. Knows no mixer.

import type { RMSNorm } from "@diffmamba/nn";
import { rmsNorm, type Tensor } from "@diffmamba/tensor";

/**
 * a - lambda b, or a + b without a lambda: in f32, whatever the branches computed in, and rounded once. lambda is 1, or (), (1,) or
 * one a channel, in f32.
 */
export function difference(a: Tensor, b: Tensor, lambda: Tensor | 1 | undefined): Tensor {
  const type = a.dtype === "f64" ? "f64" : "f32";
  const [first, second] = [a.cast(type), b.cast(type)];
  if (lambda === undefined) return first.add(second).cast(a.dtype);
  return first.sub(lambda === 1 ? second : second.mul(lambda)).cast(a.dtype);
}

/**
 * The factor goes into the norm's weight, so that no pass over p is made for it, and the weight is cast after it. With no norm
 * ("without subln" in the paper's table 2) it stays.
 */
export function finish(p: Tensor, subln: RMSNorm | undefined, initial: number): Tensor {
  if (subln === undefined) return p.mul(1 - initial);
  return rmsNorm(p, subln.weight.mul(1 - initial).cast(p.dtype), { eps: subln.eps });
}
