// Layer: reference backend. One AdamW step over lists of parameters, and the norm of lists of gradients, as plain loops.
// Knows views; knows no Tensor and no optimizer.

import { sizeOf } from "../layout.js";
import type { RoutineKernels } from "../routineKernels.js";
import { checkContiguous, floats, ints, scalar, storeDoubles } from "./views.js";

/** The square root of the sum of squares of all elements of all tensors, summed in their order: () out. */
export const globalNorm: RoutineKernels["globalNorm"] = (tensors, out) => {
  let sum = 0;
  for (const tensor of tensors) {
    checkContiguous("globalNorm: tensor", tensor);
    const data = floats(tensor);
    const end = tensor.offset + sizeOf(tensor.shape);
    for (let i = tensor.offset; i < end; i++) sum += data[i] * data[i];
  }
  storeDoubles("globalNorm: out", out, Float64Array.of(Math.sqrt(sum)));
};

/**
 * One step of AdamW (arXiv 1711.05101, algorithm 2, as torch.optim.AdamW does it), in place. With t = step + 1 and
 * g = scale * grad, for every element:
 *
 *     p <- p (1 - lr weightDecay)
 *     m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g^2
 *     p <- p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *
 * A parameter's copy, where there is one, becomes its new value, rounded. `step` goes up by one. Where `norm` is not finite nothing changes, `step` included. Computes in double.
 */
export const adamw: RoutineKernels["adamw"] = (inputs, { beta1, beta2, eps, weightDecay }) => {
  if (!Number.isFinite(scalar(inputs.norm))) return;
  const step = ints("adamw: step", inputs.step);
  step[0]++;
  const lr = scalar(inputs.lr);
  const scale = scalar(inputs.scale);
  const stepSize = lr / (1 - beta1 ** step[0]);
  const root = Math.sqrt(1 - beta2 ** step[0]);
  for (let k = 0; k < inputs.params.length; k++) {
    const views = [inputs.params[k], inputs.grads[k], inputs.m[k], inputs.v[k]];
    const [param, grad, m, v] = views.map((view, i) => {
      checkContiguous(`adamw: ${["parameter", "gradient", "m", "v"][i]} ${k}`, view);
      return floats(view).subarray(view.offset, view.offset + sizeOf(view.shape));
    });
    const kept = 1 - lr * weightDecay[k];
    for (let i = 0; i < param.length; i++) {
      const g = scale * grad[i];
      const mi = beta1 * m[i] + (1 - beta1) * g;
      const vi = beta2 * v[i] + (1 - beta2) * g * g;
      m[i] = mi;
      v[i] = vi;
      param[i] = kept * param[i] - (stepSize * mi) / (Math.sqrt(vi) / root + eps);
    }
    const copy = inputs.copies?.[k];
    if (copy !== undefined) storeDoubles(`adamw: copy ${k}`, copy, Float64Array.from(param));
  }
};
