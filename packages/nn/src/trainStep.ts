// One training step: loss, gradients (over micro-batches if there are several, summed in f32), clipping, update.
// Knows losses as functions and an optimizer. Knows no model, no data and no schedule.

import { isHalf, noGrad, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import type { AdamW, StepOptions } from "./adamw.js";
import type { LossScale } from "./lossScale.js";

export interface TrainStepOptions extends Omit<StepOptions, "lossScale"> {
  /** For f16: scales the loss, and follows from step to step. */
  readonly lossScale?: LossScale;
}

export interface TrainStepResult {
  /** () mean loss over the micro-batches. */
  readonly loss: Tensor;
  /** () global norm of the gradients before clipping; where it is not finite the step changed nothing. */
  readonly norm: Tensor;
}

/** Gradients as the sums of a step's parts begin: half as wide ones in f32. Those given are used up. */
const asSums = (gradients: readonly Tensor[]): Tensor[] =>
  noGrad(() =>
    gradients.map((gradient) => {
      if (!isHalf(gradient.dtype)) return gradient;
      const wide = gradient.cast("f32");
      gradient.dispose();
      return wide;
    }),
  );

/**
 * Takes one optimizer step on the mean of the losses. Each function is run, differentiated and freed before the next:
 * the memory is that of one micro-batch. Nothing is read back.
 */
export function trainStep(
  optimizer: AdamW,
  losses: readonly (() => Tensor)[],
  { lossScale, ...options }: TrainStepOptions,
): TrainStepResult {
  if (losses.length === 0) throw new RangeError("trainStep: there is no loss to step on.");
  return scope(() => {
    const share = 1 / losses.length;
    const leaves = optimizer.parameters.map((parameter) => parameter.compute);
    let loss: Tensor | undefined;
    let gradients: Tensor[] | undefined;
    for (const compute of losses) {
      const shared = losses.length === 1 ? compute : () => compute().mul(share);
      const fn = lossScale === undefined ? shared : () => shared().mul(lossScale.scale);
      const result = valueAndGrad(fn, leaves, gradients && { into: gradients });
      gradients = losses.length === 1 || gradients ? result.gradients : asSums(result.gradients);
      const value = lossScale === undefined ? result.value : noGrad(() => result.value.div(lossScale.scale));
      loss = loss === undefined ? value : noGrad(() => loss?.add(value));
    }
    const norm = optimizer.step(gradients ?? [], { ...options, ...(lossScale && { lossScale: lossScale.scale }) });
    lossScale?.update(norm);
    return { loss: loss as Tensor, norm };
  });
}
