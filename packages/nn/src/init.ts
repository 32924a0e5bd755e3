// Initialisers: the first values of parameters, drawn on the host.
// Knows shapes and streams. Knows no layer.

import type { RandomStream } from "@diffmamba/random";

/** Fills `values`, the elements of a parameter of `shape` in row-major order. */
export type Initializer = (values: Float64Array, shape: readonly number[], stream: RandomStream) => void;

export function constant(value: number): Initializer {
  return (values) => void values.fill(value);
}

export const zeros: Initializer = constant(0);
export const ones: Initializer = constant(1);

/** N(mean, std^2) */
export function normal(std: number, mean = 0): Initializer {
  return (values, _shape, stream) => void stream.normal(values, mean, std);
}

/** U(low, high) */
export function uniform(low: number, high: number): Initializer {
  return (values, _shape, stream) => void stream.uniform(values, low, high);
}

/** U(-1/sqrt(fanIn), 1/sqrt(fanIn)): what PyTorch gives the weights and biases of linear layers and convolutions. */
export function fanIn(size: number): Initializer {
  const bound = 1 / Math.sqrt(size);
  return uniform(-bound, bound);
}

/** The values of another initialiser, multiplied by `factor`. */
export function scaled(initialize: Initializer, factor: number): Initializer {
  return (values, shape, stream) => {
    initialize(values, shape, stream);
    for (let i = 0; i < values.length; i++) values[i] *= factor;
  };
}
