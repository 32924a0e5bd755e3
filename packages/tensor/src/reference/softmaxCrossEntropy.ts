// Layer: reference backend. Cross-entropy of a softmax with class indices, and its gradient, as plain loops.
// Knows views; knows no Tensor and no tape.

import { ValueError } from "../errors.js";
import type { RoutineKernels } from "../routineKernels.js";
import { ints, optionalDoubles, optionalRows, Rows, storeDoubles } from "./views.js";

/** @throws ValueError for a target that is neither a class nor `ignoreIndex` */
function checkTargets(targets: Int32Array, classes: number, ignoreIndex: number): void {
  for (let row = 0; row < targets.length; row++) {
    const target = targets[row];
    if (target === ignoreIndex || (target >= 0 && target < classes)) continue;
    throw new ValueError(
      `softmaxCrossEntropy: target ${target} of row ${row} lies outside [0, ${classes}), the classes of logits, ` +
        `and is not ignoreIndex (${ignoreIndex}); map it to a class or to ignoreIndex.`,
    );
  }
}

/**
 * loss_r = log(sum_v e^{logits_rv}) - logits_{r, target_r} in nats, and 0 where target_r is `ignoreIndex`.
 * logits (R, V) rows; targets (R,) i32; losses (R,); logSumExp (R,), of every row, saved for backward.
 * @throws ValueError for any other target outside [0, V)
 */
export const softmaxCrossEntropy: RoutineKernels["softmaxCrossEntropy"] = (inputs, outputs, { ignoreIndex }) => {
  const rows = new Rows("softmaxCrossEntropy: logits", inputs.logits, 1);
  const targets = ints("softmaxCrossEntropy: targets", inputs.targets);
  const { width, count } = rows;
  checkTargets(targets, width, ignoreIndex);
  const losses = new Float64Array(count);
  const logSumExp = new Float64Array(count);
  const logits = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    rows.load(row, logits);
    let max = -Infinity;
    for (let v = 0; v < width; v++) max = Math.max(max, logits[v]);
    let sum = 0;
    for (let v = 0; v < width; v++) sum += Math.exp(logits[v] - max);
    logSumExp[row] = max + Math.log(sum);
    if (targets[row] !== ignoreIndex) losses[row] = Math.log(sum) - (logits[targets[row]] - max);
  }
  storeDoubles("softmaxCrossEntropy: losses", outputs.losses, losses);
  storeDoubles("softmaxCrossEntropy: logSumExp", outputs.logSumExp, logSumExp);
};

/**
 * The gradient of {@link softmaxCrossEntropy}, from the saved logSumExp:
 * dlogits_rv = dlosses_r (e^{logits_rv - logSumExp_r} - [v = target_r]), and 0 in ignored rows.
 */
export const softmaxCrossEntropyBackward: RoutineKernels["softmaxCrossEntropyBackward"] = (
  inputs,
  outputs,
  { ignoreIndex },
) => {
  const rows = new Rows("softmaxCrossEntropyBackward: logits", inputs.logits, 1);
  const targets = ints("softmaxCrossEntropyBackward: targets", inputs.targets);
  const dlosses = optionalDoubles("softmaxCrossEntropyBackward: dlosses", inputs.dlosses);
  const dRows = optionalRows("softmaxCrossEntropyBackward: dlogits", outputs.dlogits, 1);
  const { width, count } = rows;
  checkTargets(targets, width, ignoreIndex);
  const logSumExp = new Rows("softmaxCrossEntropyBackward: logSumExp", inputs.logSumExp, 0);
  const d = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    const target = targets[row];
    if (target === ignoreIndex || dlosses === undefined) {
      dRows?.clear(row, row + 1);
      continue;
    }
    rows.load(row, d);
    const lse = logSumExp.get(row, 0);
    for (let v = 0; v < width; v++) d[v] = dlosses[row] * Math.exp(d[v] - lse);
    d[target] -= dlosses[row];
    dRows?.store(row, d);
  }
};
