// One training step: loss, gradients (over micro-batches if there are several), clipping, update.
// Knows losses as functions and an optimizer. Knows no model, no data and no schedule.

import { noGrad, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import type { AdamW, StepOptions } from "./adamw.js";

export interface TrainStepResult {
  /** () mean loss over the micro-batches. */
  readonly loss: Tensor;
  /** () global norm of the gradients before clipping; where it is not finite the step changed nothing. */
  readonly norm: Tensor;
}

/**
 * Takes one optimizer step on the mean of the losses. Each function is run, differentiated and freed before the next:
 * the memory is that of one micro-batch. Nothing is read back.
 */
export function trainStep(optimizer: AdamW, losses: readonly (() => Tensor)[], options: StepOptions): TrainStepResult {
  if (losses.length === 0) throw new RangeError("trainStep: there is no loss to step on.");
  return scope(() => {
    const share = 1 / losses.length;
    let loss: Tensor | undefined;
    let gradients: Tensor[] | undefined;
    for (const compute of losses) {
      const fn = losses.length === 1 ? compute : () => compute().mul(share);
      const result = valueAndGrad(fn, optimizer.parameters, gradients && { into: gradients });
      const { value } = result;
      gradients = result.gradients;
      loss = loss === undefined ? value : noGrad(() => loss?.add(value));
    }
    const norm = optimizer.step(gradients ?? [], options);
    return { loss: loss as Tensor, norm };
  });
}
