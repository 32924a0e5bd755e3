// First values of the dynamics: dt's bias, A and D, as state-spaces/mamba draws them.
// Knows numbers and streams. Knows no mixer.

import type { Initializer } from "@diffmamba/nn";

/** The range of dt at the start, in units of a token. */
export interface DtRange {
  /** 0.001 by default. */
  readonly dtMin?: number;
  /** 0.1 by default. */
  readonly dtMax?: number;
  /** No dt is below this; 1e-4 by default. */
  readonly dtInitFloor?: number;
}

/** Biases whose softplus is exp(U(ln dtMin, ln dtMax)): dt + log(1 - e^-dt) inverts softplus. */
export function dtBias({ dtMin = 0.001, dtMax = 0.1, dtInitFloor = 1e-4 }: DtRange = {}): Initializer {
  return (values, _shape, stream) => {
    stream.uniform(values, Math.log(dtMin), Math.log(dtMax));
    for (let i = 0; i < values.length; i++) {
      const dt = Math.max(Math.exp(values[i]), dtInitFloor);
      values[i] = dt + Math.log(-Math.expm1(-dt));
    }
  };
}

/** Mamba-1: A_log[c, n] = log(n + 1) (S4D-real). Over (D, N). */
export const s4dReal: Initializer = (values, shape) => {
  const states = shape[shape.length - 1];
  for (let i = 0; i < values.length; i++) values[i] = Math.log((i % states) + 1);
};

/** Mamba-2: A_log = log U(low, high) per head. */
export function logUniform(low: number, high: number): Initializer {
  return (values, _shape, stream) => {
    stream.uniform(values, low, high);
    for (let i = 0; i < values.length; i++) values[i] = Math.log(values[i]);
  };
}

/** A_log = log(1 .. H), as the Hugging Face class draws it. */
export const logRange: Initializer = (values) => {
  for (let i = 0; i < values.length; i++) values[i] = Math.log(i + 1);
};
