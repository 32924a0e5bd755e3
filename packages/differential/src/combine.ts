// What every differential mixer ends with: (1 - lambda_init) RMSNorm(p) of the difference p (arXiv 2507.06204, eq. 21).
// Knows a norm and numbers. Knows no mixer.

import type { RMSNorm } from "@diffmamba/nn";
import { rmsNorm, type Tensor } from "@diffmamba/tensor";

/** The factor goes into the norm's weight, so that no pass over p is made for it. With no norm ("without subln" in the paper's table 2) it stays. */
export function finish(p: Tensor, subln: RMSNorm | undefined, initial: number): Tensor {
  if (subln === undefined) return p.mul(1 - initial);
  return rmsNorm(p, subln.weight.mul(1 - initial), { eps: subln.eps });
}
