// Causal depthwise convolution over time, with SiLU: y_t = act(bias + sum_k w_k x_{t-W+1+k}) (Gu and Dao 2023, section 3.4).
// Knows shapes, types and what is saved. Knows no loop, no backend and no layer.

import { ShapeError } from "../errors.js";
import { expectShape, type RoutineSpec, routineSpec, runRoutine } from "../routine.js";
import type { Tensor } from "../tensor.js";
import { checkSequence, replacement, type SequenceOptions, sequenceInputs } from "./sequence.js";

export interface CausalConv1dOptions extends SequenceOptions {
  /** (C,) */
  readonly bias?: Tensor;
  /** (B, C, W), the last W inputs before the row, oldest first; zeros by default. */
  readonly initialState?: Tensor;
  /** "silu" by default. */
  readonly activation?: "silu" | "none";
}

const spec: RoutineSpec<{ readonly activation: "silu" | "none" }> = {
  name: "causalConv1d",
  inputs: {
    x: { row: 1, type: "main" },
    weight: { row: "whole", type: "main" },
    bias: { row: "whole", type: "main" },
    initialState: { row: "whole", type: "statistic" },
    ...sequenceInputs,
  },
  required: ["x", "weight"],
  outputs: ({ x, weight, bias, initialState, seqIdx, lengths }) => {
    const op = "causalConv1d";
    expectShape(op, "x", x, [undefined, undefined, undefined]);
    const [batch, length, channels] = x.shape;
    expectShape(op, "weight", weight, [channels, undefined]);
    const width = weight.dim(1);
    if (width === 0) throw new ShapeError(`${op}: the weight has width 0.`);
    expectShape(op, "bias", bias, [channels]);
    expectShape(op, "initialState", initialState, [batch, channels, width]);
    checkSequence(op, { seqIdx, lengths }, batch, length);
    return { y: { shape: x.shape, type: "main" }, finalState: { shape: [batch, channels, width], type: "statistic" } };
  },
  rows: { y: { row: 1, type: "main" }, finalState: { row: "whole", type: "statistic" } },
  returns: ["y", "finalState"],
  saves: [],
  gradients: ["x", "weight", "bias", "initialState"],
  recomputes: "the sums before the activation",
  remakes: true,
};

/**
 * x (B, L, C), weight (C, W) -> y (B, L, C) and the last W inputs, finalState (B, C, W), f32.
 * @throws ShapeError, DTypeError
 */
export function causalConv1d(
  x: Tensor,
  weight: Tensor,
  { activation = "silu", replacesState, ...optional }: CausalConv1dOptions = {},
): { y: Tensor; finalState: Tensor } {
  const replaced = replacement("causalConv1d", replacesState, x.shape[1]);
  const { y, finalState } = runRoutine(spec, { x, weight, ...optional }, { activation }, replaced);
  return { y, finalState };
}

export const specs = [routineSpec(spec)];
