// The state space dual scan of Mamba-2, SSD (Dao and Gu 2024, section 6), in chunks, with its gate, skip and softplus fused:
//   S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t,  dt = clamp(softplus(dt + dtBias)).
// Knows shapes, types and what is saved. Knows no loop, no backend and no layer.

import { ShapeError } from "../errors.js";
import { expectShape, type RoutineSpec, routineSpec, runRoutine } from "../routine.js";
import type { SsdOptions as KernelOptions } from "../routineKernels.js";
import type { Tensor } from "../tensor.js";
import { checkChunkSize } from "./selectiveScan.js";
import { checkSequence, replacement, type SequenceOptions, sequenceInputs } from "./sequence.js";

export interface SsdInputs {
  /** (B, L, H, P) */
  readonly x: Tensor;
  /** (B, L, H), before bias, softplus and limits. */
  readonly dt: Tensor;
  /** (H,), negative. */
  readonly A: Tensor;
  /** (B, L, G, N); head h belongs to group floor(h G / H). */
  readonly B: Tensor;
  /** (B, L, G, N) */
  readonly C: Tensor;
  /** (H,) or (H, P) skip connection. */
  readonly D?: Tensor;
  /** (B, L, H, P) gate: y is multiplied by silu(z). */
  readonly z?: Tensor;
  /** (H,) */
  readonly dtBias?: Tensor;
  /** (B, H, P, N), f32, or kept in bf16 or f16 between calls; zeros by default. */
  readonly initialState?: Tensor;
}

export interface SsdOptions extends SequenceOptions {
  /** Tokens a chunk; the result does not depend on it but for rounding. What the backend is fastest with by default. */
  readonly chunkSize?: number;
  /** true by default. */
  readonly dtSoftplus?: boolean;
  /** dt is clamped to this range; [0, Infinity] by default. */
  readonly dtLimit?: readonly [number, number];
}

const spec: RoutineSpec<KernelOptions> = {
  name: "ssdScan",
  inputs: {
    x: { row: 2, type: "main" },
    dt: { row: 1, type: "main" },
    A: { row: "whole", type: "statistic" },
    B: { row: 2, type: "main" },
    C: { row: 2, type: "main" },
    D: { row: "whole", type: "statistic" },
    z: { row: 2, type: "main" },
    dtBias: { row: "whole", type: "statistic" },
    initialState: { row: "whole", type: "state" },
    ...sequenceInputs,
  },
  required: ["x", "dt", "A", "B", "C"],
  outputs: ({ x, dt, A, B, C, D, z, dtBias, initialState, seqIdx, lengths }, { chunkSize }) => {
    const op = "ssdScan";
    expectShape(op, "x", x, [undefined, undefined, undefined, undefined]);
    const [batch, length, heads, headDim] = x.shape;
    expectShape(op, "dt", dt, [batch, length, heads]);
    expectShape(op, "A", A, [heads]);
    expectShape(op, "B", B, [batch, length, undefined, undefined]);
    expectShape(op, "C", C, B.shape);
    const [groups, state] = B.shape.slice(2);
    if (heads % groups !== 0)
      throw new ShapeError(`${op}: ${heads} heads do not divide into the ${groups} groups of B.`);
    expectShape(op, "D", D, D?.rank === 2 ? [heads, headDim] : [heads]);
    expectShape(op, "z", z, x.shape);
    expectShape(op, "dtBias", dtBias, [heads]);
    expectShape(op, "initialState", initialState, [batch, heads, headDim, state]);
    checkSequence(op, { seqIdx, lengths }, batch, length);
    const chunks = Math.ceil(length / chunkSize);
    return {
      y: { shape: x.shape, type: "main" },
      finalState: { shape: [batch, heads, headDim, state], type: "state" },
      states: { shape: [batch, chunks, heads, headDim, state], type: "statistic" },
    };
  },
  rows: {
    y: { row: 2, type: "main" },
    finalState: { row: "whole", type: "state" },
    states: { row: "whole", type: "statistic" },
  },
  returns: ["y", "finalState"],
  saves: ["states"],
  mayOmitSaves: true,
  gradients: ["x", "dt", "A", "B", "C", "D", "z", "dtBias", "initialState"],
  recomputes: "decays and C B^T of each chunk",
};

/** -> y (B, L, H, P) and the state after each row, finalState (B, H, P, N), of the type of initialState, else f32: the
 * arithmetic is in f32, and what is kept in 16 bits is rounded to nearest once, at the end. @throws ShapeError, DTypeError */
export function ssdScan(
  inputs: SsdInputs,
  {
    chunkSize = inputs.x.device.backend.chunkSizes?.ssdScan ?? 64,
    dtSoftplus = true,
    dtLimit = [0, Number.POSITIVE_INFINITY],
    replacesState,
    ...sequence
  }: SsdOptions = {},
): { y: Tensor; finalState: Tensor } {
  if (!(dtLimit[0] <= dtLimit[1])) throw new ShapeError(`ssdScan: dtLimit [${dtLimit.join(", ")}] is no range.`);
  const { y, finalState } = runRoutine(
    spec,
    { ...inputs, ...sequence },
    { chunkSize: checkChunkSize("ssdScan", chunkSize), dtSoftplus, dtLimit },
    replacement("ssdScan", replacesState, inputs.x.shape[1]),
  );
  return { y, finalState };
}

export const specs = [routineSpec(spec)];
