// Layer: conformance. Routines without stored values to compare with, against the same formula written in primitives.
// Knows the ops' calls. Knows no device by name.

import { layerNorm, logSumExp, rmsNorm, softmax, softmaxCrossEntropy, type Tensor } from "@diffmamba/tensor";
import { distinct, given, index, uniform } from "../cases/inputs.js";
import { equality, type Property } from "./property.js";

const exact = ["f64", "f32"] as const;

/** sum over the last axis of x * onehot(target), (R, V) and (R,) -> (R,) */
function pick(x: Tensor, targets: Tensor): Tensor {
  const classes = x.device.arange(x.dim(-1));
  const chosen = classes.equal(targets.reshape(-1, 1));
  return chosen.where(x, x.device.zeros([], x.dtype)).sum(-1);
}

export const compositionProperties: readonly Property[] = [
  equality({
    name: "layerNorm = its formula",
    dtypes: exact,
    inputs: { x: uniform([3, 5, 24], -1, 3), weight: uniform([24]), bias: uniform([24]) },
    ways: {
      formula: ({ x, weight, bias }) => {
        const centred = x.sub(x.mean(-1, true));
        const variance = centred.square().mean(-1, true);
        return { y: centred.mul(variance.add(1e-5).rsqrt()).mul(weight).add(bias) };
      },
      layerNorm: ({ x, weight, bias }) => ({ y: layerNorm(x, weight, { bias }) }),
    },
  }),
  ...[false, true].map((normBeforeGate) =>
    equality({
      name: `rmsNorm in groups, gate ${normBeforeGate ? "after" : "before"} = its formula`,
      dtypes: exact,
      inputs: { x: uniform([5, 24]), weight: uniform([24]), z: uniform([5, 24], -2, 2) },
      ways: {
        formula: ({ x, weight, z }) => {
          const v = (normBeforeGate ? x : x.mul(z.silu())).reshape(5, 3, 8);
          const normed = v.mul(v.square().mean(-1, true).add(1e-5).rsqrt()).reshape(5, 24).mul(weight);
          return { y: normBeforeGate ? normed.mul(z.silu()) : normed };
        },
        rmsNorm: ({ x, weight, z }) => ({ y: rmsNorm(x, weight, { gate: z, normBeforeGate, groupSize: 8 }) }),
      },
    }),
  ),
  equality({
    name: "softmaxCrossEntropy = its formula",
    dtypes: exact,
    inputs: { logits: uniform([9, 13], -4, 4), targets: index([9], 13) },
    ways: {
      formula: ({ logits, targets }) => ({ loss: logSumExp(logits).sub(pick(logits, targets)).mean() }),
      "log of the softmax": ({ logits, targets }) => ({ loss: pick(softmax(logits).log(), targets).mean().neg() }),
      softmaxCrossEntropy: ({ logits, targets }) => ({ loss: softmaxCrossEntropy(logits, targets) }),
    },
  }),
  equality({
    name: "softmaxCrossEntropy with ignored targets = without those rows",
    dtypes: exact,
    inputs: {
      logits: uniform([6, 7], -4, 4),
      targets: given([6], [-100, 3, 0, -100, -100, 6], "i32"),
      counted: given([3], [1, 2, 5], "i32"),
      classes: given([3], [3, 0, 6], "i32"),
    },
    ways: {
      "without them": ({ logits, counted, classes }) => {
        const rows = logits.gather(counted);
        return {
          mean: softmaxCrossEntropy(rows, classes),
          sum: softmaxCrossEntropy(rows, classes, { reduction: "sum" }),
        };
      },
      "with them": ({ logits, targets }) => ({
        mean: softmaxCrossEntropy(logits, targets),
        sum: softmaxCrossEntropy(logits, targets, { reduction: "sum" }),
      }),
    },
  }),
  equality({
    name: "softmax does not change when a constant is added",
    dtypes: exact,
    inputs: { x: distinct([4, 9]) },
    ways: { "as it is": ({ x }) => ({ y: softmax(x) }), shifted: ({ x }) => ({ y: softmax(x.add(8)) }) },
  }),
];
