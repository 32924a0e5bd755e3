// Cross-entropy of a softmax, in nats, with ignored targets; softmax and its logarithm built from primitives.
// Knows shapes, types and what is saved. Knows no loop, no backend and no model.

import { ShapeError } from "../errors.js";
import { sizeOf } from "../layout.js";
import { needsFloat, statisticsType } from "../op.js";
import { expectShape, type RoutineSpec, routineSpec, runRoutine } from "../routine.js";
import type { Tensor } from "../tensor.js";

const spec: RoutineSpec<{ readonly ignoreIndex: number }> = {
  name: "softmaxCrossEntropy",
  inputs: { logits: { row: 1, flat: true, type: "main" }, targets: { row: "whole", type: "i32" } },
  required: ["logits", "targets"],
  outputs: ({ logits, targets }) => {
    if (logits.rank < 1)
      throw new ShapeError("softmaxCrossEntropy: the logits are a single number; they need an axis of classes.");
    expectShape("softmaxCrossEntropy", "targets", targets, logits.shape.slice(0, -1));
    const rows = sizeOf(targets.shape);
    return { losses: { shape: targets.shape, type: "statistic" }, logSumExp: { shape: [rows], type: "statistic" } };
  },
  rows: { losses: { row: "whole", type: "statistic" }, logSumExp: { row: "whole", type: "statistic" } },
  returns: ["losses"],
  saves: ["logSumExp"],
  gradients: ["logits"],
  recomputes: "the softmax",
};

/** PyTorch's mark of a target that does not count. */
export const IGNORE_INDEX = -100;

export interface CrossEntropyOptions {
  /** Targets of this value do not count; -100 by default. */
  readonly ignoreIndex?: number;
  /** "mean" over the targets that count (0 if none does), their "sum", or "none": one loss each, 0 where ignored. */
  readonly reduction?: "mean" | "sum" | "none";
}

/**
 * logits (..., V), targets (...) i32 -> nats, f32.
 * @throws ShapeError, DTypeError; a target outside [0, V) is a ValueError on the reference, NaN on a device
 */
export function softmaxCrossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const { ignoreIndex = IGNORE_INDEX, reduction = "mean" } = options;
  const { losses } = runRoutine(spec, { logits, targets }, { ignoreIndex });
  if (reduction === "none") return losses;
  const total = losses.sum();
  if (reduction === "sum") return total;
  const ignored = targets.equal(ignoreIndex).cast(losses.dtype).sum();
  return total.div(ignored.neg().add(targets.size).maximum(1));
}

/** exp(x - max) / sum, over the last axis. */
export function softmax(x: Tensor): Tensor {
  needsFloat("softmax", x);
  const shifted = x.sub(x.max(-1, true)).exp();
  return shifted.div(shifted.sum(-1, true));
}

/** log of the sum of exp(x), over the last axis. */
export function logSumExp(x: Tensor): Tensor {
  const wide = x.cast(statisticsType(x.dtype));
  const greatest = wide.max(-1, true);
  return wide
    .sub(greatest)
    .exp()
    .sum(-1, true)
    .log()
    .add(greatest)
    .reshape(...x.shape.slice(0, -1));
}

export const specs = [routineSpec(spec)];
