// Layer: apps/playground, bench. What is timed: the work, and what does it.
// Knows numbers. Knows no device.

/** Work that is ready to be done again and again. */
export interface Work {
  /** Does it once; resolves when it is done. */
  run(): Promise<void>;
  /** Numbers that all contenders must agree on: a product's elements, or the losses of the steps so far. */
  result(): Promise<readonly number[]>;
  dispose(): void;
}

/** A step of a network of two layers: mean((silu(x W1) W2 - y)^2), its gradients, and W - rate * gradient. */
export interface StepShape {
  readonly batch: number;
  readonly input: number;
  readonly hidden: number;
  readonly output: number;
}

export interface Contender {
  readonly name: string;
  /** left (n, n) times right (n, n). */
  matmul(n: number, left: Float32Array, right: Float32Array): Promise<Work>;
  step(shape: StepShape, values: StepValues): Promise<Work>;
  dispose(): Promise<void>;
}

export interface StepValues {
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly w1: Float32Array;
  readonly w2: Float32Array;
}

export const learningRate = 0.1;

export interface Row {
  readonly work: string;
  readonly device: string;
  readonly name: string;
  /** Milliseconds. */
  readonly median: number;
  readonly best: number;
  readonly samples: number;
}
