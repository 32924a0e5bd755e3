// The selective scan of Mamba-1, S6 (Gu and Dao 2023, algorithm 2), with its gate, skip and softplus fused:
//   h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  y_t = (C_t h_t + D u_t) silu(z_t),  dt = softplus(delta + deltaBias).
// Knows shapes, types and what is saved. Knows no loop, no backend and no layer.

import { ShapeError } from "../errors.js";
import { expectShape, type RoutineSpec, routineSpec, runRoutine } from "../routine.js";
import type { SelectiveScanOptions as KernelOptions } from "../routineKernels.js";
import type { Tensor } from "../tensor.js";
import { checkSequence, replacement, type SequenceOptions, sequenceInputs } from "./sequence.js";

export interface SelectiveScanInputs {
  /** (B, L, D) */
  readonly u: Tensor;
  /** (B, L, D), before bias and softplus. */
  readonly delta: Tensor;
  /** (D, N), negative. */
  readonly A: Tensor;
  /** (B, L, N) or (B, L, G, N) */
  readonly B: Tensor;
  /** (B, L, N) or (B, L, G, N) */
  readonly C: Tensor;
  /** (D,) skip connection. */
  readonly D?: Tensor;
  /** (B, L, D) gate. */
  readonly z?: Tensor;
  /** (D,) */
  readonly deltaBias?: Tensor;
  /** (B, D, N), f32, or kept in bf16 or f16 between calls; zeros by default. */
  readonly initialState?: Tensor;
}

export interface SelectiveScanOptions extends SequenceOptions {
  /** true by default. */
  readonly deltaSoftplus?: boolean;
  /** Tokens between two states kept for backward; the result does not depend on it. */
  readonly chunkSize?: number;
}

const spec: RoutineSpec<KernelOptions> = {
  name: "selectiveScan",
  inputs: {
    u: { row: 1, type: "main" },
    delta: { row: 1, type: "main" },
    A: { row: "whole", type: "statistic" },
    B: { row: 2, type: "main" },
    C: { row: 2, type: "main" },
    D: { row: "whole", type: "statistic" },
    z: { row: 1, type: "main" },
    deltaBias: { row: "whole", type: "statistic" },
    initialState: { row: "whole", type: "state" },
    ...sequenceInputs,
  },
  required: ["u", "delta", "A", "B", "C"],
  outputs: ({ u, delta, A, B, C, D, z, deltaBias, initialState, seqIdx, lengths }, { chunkSize }) => {
    const op = "selectiveScan";
    expectShape(op, "u", u, [undefined, undefined, undefined]);
    const [batch, length, channels] = u.shape;
    expectShape(op, "delta", delta, u.shape);
    expectShape(op, "A", A, [channels, undefined]);
    const state = A.dim(1);
    expectShape(op, "B", B, [batch, length, undefined, state]);
    expectShape(op, "C", C, B.shape);
    if (channels % B.dim(2) !== 0) {
      throw new ShapeError(`${op}: ${channels} channels do not divide into the ${B.dim(2)} groups of B.`);
    }
    expectShape(op, "D", D, [channels]);
    expectShape(op, "z", z, u.shape);
    expectShape(op, "deltaBias", deltaBias, [channels]);
    expectShape(op, "initialState", initialState, [batch, channels, state]);
    checkSequence(op, { seqIdx, lengths }, batch, length);
    const chunks = Math.ceil(length / chunkSize);
    return {
      y: { shape: u.shape, type: "main" },
      finalState: { shape: [batch, channels, state], type: "state" },
      states: { shape: [batch, chunks, channels, state], type: "statistic" },
    };
  },
  rows: {
    y: { row: 1, type: "main" },
    finalState: { row: "whole", type: "state" },
    states: { row: "whole", type: "statistic" },
  },
  returns: ["y", "finalState"],
  saves: ["states"],
  mayOmitSaves: true,
  gradients: ["u", "delta", "A", "B", "C", "D", "z", "deltaBias", "initialState"],
  recomputes: "the states inside a chunk",
};

/** A whole number of at least 1, for a chunk size. */
export function checkChunkSize(op: string, chunkSize: number): number {
  if (!Number.isInteger(chunkSize) || chunkSize < 1)
    throw new ShapeError(`${op}: chunkSize ${chunkSize} is no number of tokens.`);
  return chunkSize;
}

/** -> y (B, L, D) and the state after each row, finalState (B, D, N), of the type of initialState, else f32: the
 * arithmetic is in f32, and what is kept in 16 bits is rounded to nearest once, at the end. @throws ShapeError, DTypeError */
export function selectiveScan(
  inputs: SelectiveScanInputs,
  {
    deltaSoftplus = true,
    chunkSize = inputs.u.device.backend.chunkSizes?.selectiveScan ?? 64,
    replacesState,
    ...sequence
  }: SelectiveScanOptions = {},
): { y: Tensor; finalState: Tensor } {
  const grouped = (x: Tensor) => (x.rank === 3 ? x.reshape(x.dim(0), x.dim(1), 1, x.dim(2)) : x);
  const { y, finalState } = runRoutine(
    spec,
    { ...inputs, B: grouped(inputs.B), C: grouped(inputs.C), ...sequence },
    { deltaSoftplus, chunkSize: checkChunkSize("selectiveScan", chunkSize) },
    replacement("selectiveScan", replacesState, inputs.u.shape[1]),
  );
  return { y, finalState };
}

export const specs = [routineSpec(spec)];
