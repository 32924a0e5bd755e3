// What the sequence routines share: packing by sequence index, lengths of padded rows.
// Knows shapes. Knows no routine.

import { ShapeError } from "../errors.js";
import { expectShape, type InputRule } from "../routine.js";
import type { Tensor } from "../tensor.js";

/** Packing and padding, common to every sequence routine. */
export interface SequenceOptions {
  /** (B, L) i32, non-decreasing along a row: state restarts, from zero, where it changes. */
  readonly seqIdx?: Tensor;
  /** (B,) i32: tokens of a row from here on are padding; they leave the state alone and their output is 0. */
  readonly lengths?: Tensor;
  /**
   * `finalState` is written over `initialState`, which must be contiguous, and is another handle on it. For sequences of a single
   * token, outside a tape: a step of decoding then makes no states.
   */
  readonly replacesState?: boolean;
}

/** What a routine is told of {@link SequenceOptions.replacesState}. @throws ShapeError where there is more than one token */
export function replacement(
  op: string,
  replacesState: boolean | undefined,
  length: number | undefined,
): { readonly finalState?: "initialState" } {
  if (!replacesState) return {};
  if (length !== 1) {
    throw new ShapeError(`${op}: the state can be replaced in place after one token, but there are ${length}.`);
  }
  return { finalState: "initialState" };
}

export const sequenceInputs = {
  seqIdx: { row: "whole", type: "i32" },
  lengths: { row: "whole", type: "i32" },
} as const satisfies Record<string, InputRule>;

/** @throws ShapeError unless they are (B, L) and (B,) */
export function checkSequence(op: string, options: SequenceOptions, batch: number, length: number): void {
  expectShape(op, "seqIdx", options.seqIdx, [batch, length]);
  expectShape(op, "lengths", options.lengths, [batch]);
}
