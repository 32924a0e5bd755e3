// What every differential mixer ends with: (1 - lambda_init) RMSNorm(p) of the difference p (arXiv 2507.06204, eq. 21).
// Knows a norm and numbers. Knows no mixer.

import type { RMSNorm } from "@diffmamba/nn";
import type { Tensor } from "@diffmamba/tensor";

/** With no norm ("without subln" in the paper's table 2) the factor stays. */
export function finish(p: Tensor, subln: RMSNorm | undefined, initial: number): Tensor {
  return (subln?.forward(p) ?? p).mul(1 - initial);
}
