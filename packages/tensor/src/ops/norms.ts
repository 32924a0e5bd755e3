// RMSNorm over the last axis (Zhang and Sennrich 2019, eq. 4), with Mamba-2's gate before or after it and per group, and
// LayerNorm (Ba et al. 2016). Statistics in f32.
// Knows shapes, types and what is saved. Knows no loop, no backend and no layer.

import { ShapeError } from "../errors.js";
import { sizeOf } from "../layout.js";
import { expectShape, type RoutineSpec, routineSpec, runRoutine } from "../routine.js";
import type { RmsNormOptions as KernelOptions } from "../routineKernels.js";
import type { Tensor } from "../tensor.js";

export interface RmsNormOptions {
  /** Same shape as x. */
  readonly gate?: Tensor;
  /** true: norm(x) silu(gate); false, the default and Mamba-2's: norm(x silu(gate)). */
  readonly normBeforeGate?: boolean;
  /** Channels that share one mean square; all by default. */
  readonly groupSize?: number;
  /** 1e-5 by default. */
  readonly eps?: number;
}

const row = { row: 1, flat: true, type: "main" } as const;
const whole = { row: "whole", type: "main" } as const;
const statistic = { row: "whole", type: "statistic" } as const;

/** Rows of the last axis. */
function rowsOf(x: Tensor): number {
  return sizeOf(x.shape.slice(0, -1));
}

const rmsSpec: RoutineSpec<KernelOptions> = {
  name: "rmsNorm",
  inputs: { x: row, weight: whole, z: row },
  required: ["x", "weight"],
  outputs: ({ x, weight, z }, { groupSize }) => {
    const channels = x.rank === 0 ? 0 : x.dim(-1);
    expectShape("rmsNorm", "weight", weight, [channels]);
    expectShape("rmsNorm", "gate", z, x.shape);
    if (!(groupSize > 0) || channels % groupSize !== 0) {
      throw new ShapeError(`rmsNorm: ${channels} channels do not divide into groups of ${groupSize}.`);
    }
    return {
      y: { shape: x.shape, type: "main" },
      rstd: { shape: [rowsOf(x), channels / groupSize], type: "statistic" },
    };
  },
  rows: { y: row, rstd: statistic },
  returns: ["y"],
  saves: ["rstd"],
  gradients: ["x", "weight", "z"],
  recomputes: "the gate",
  remakes: true,
};

/** x, gate: (..., D); weight: (D,) -> (..., D). @throws ShapeError, DTypeError */
export function rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions = {}): Tensor {
  const { gate, normBeforeGate = false, groupSize = x.shape[x.rank - 1], eps = 1e-5 } = options;
  return runRoutine(rmsSpec, { x, weight, z: gate }, { eps, groupSize, normBeforeGate }).y;
}

const layerSpec: RoutineSpec<{ readonly eps: number }> = {
  name: "layerNorm",
  inputs: { x: row, weight: whole, bias: whole },
  required: ["x", "weight"],
  outputs: ({ x, weight, bias }) => {
    const channels = x.rank === 0 ? 0 : x.dim(-1);
    expectShape("layerNorm", "weight", weight, [channels]);
    expectShape("layerNorm", "bias", bias, [channels]);
    return {
      y: { shape: x.shape, type: "main" },
      mean: { shape: [rowsOf(x)], type: "statistic" },
      rstd: { shape: [rowsOf(x)], type: "statistic" },
    };
  },
  rows: { y: row, mean: statistic, rstd: statistic },
  returns: ["y"],
  saves: ["mean", "rstd"],
  gradients: ["x", "weight", "bias"],
  recomputes: "the normalised values",
  remakes: true,
};

/** x: (..., D); weight, bias: (D,) -> (..., D). @throws ShapeError, DTypeError */
export function layerNorm(
  x: Tensor,
  weight: Tensor,
  options: { readonly bias?: Tensor; readonly eps?: number } = {},
): Tensor {
  return runRoutine(layerSpec, { x, weight, bias: options.bias }, { eps: options.eps ?? 1e-5 }).y;
}

export const specs = [routineSpec(rmsSpec), routineSpec(layerSpec)];
