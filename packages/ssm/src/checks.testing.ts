// Layer: tests of ssm. Runs a mixer with everything that flows through it, and differentiates it by central differences.
// Is no part of the package.

import { RandomStream } from "@diffmamba/random";
import { type Device, keep, type SequenceOptions, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import type { Mixer } from "./mixer.js";

/** rms(a - b) / rms(b), or rms(a - b) where b is zero. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(size / Math.max(b.length, 1)) < 1e-6
    ? Math.sqrt(difference / Math.max(b.length, 1))
    : Math.sqrt(difference / size);
}

/** Normally distributed numbers by name. */
export function noise(device: Device, shape: readonly number[], name: string, dtype: "f32" | "f64", std = 1): Tensor {
  const size = shape.reduce((product, n) => product * n, 1);
  return device.from(new RandomStream(7, name).normal(new Float64Array(size), 0, std), shape, dtype);
}

/** Moves every parameter away from its first value, which may be special: zeros, ones. */
export function randomize(mixer: Mixer, std = 0.3): void {
  for (const [name, parameter] of mixer.namedParameters()) {
    using own = noise(mixer.device, parameter.shape, name, parameter.dtype as "f32" | "f64", std);
    parameter.addInPlace(own);
  }
}

export interface Call extends SequenceOptions {
  readonly x: Tensor;
  readonly initialState?: readonly Tensor[];
}

/** A sum of all outputs and states, with weights of their own, so that every gradient counts. */
function lossOf(mixer: Mixer, { x, ...options }: Call): Tensor {
  const { y, state } = mixer.run(x, options);
  const parts = [y, ...state].map((part, i) => {
    return part.mul(noise(part.device, part.shape, `weights ${i}`, part.dtype as "f32" | "f64")).sum();
  });
  return parts.reduce((sum, part) => sum.add(part));
}

/** Everything that a call may be differentiated by: the input, the states it begins with, and the parameters. */
export function leavesOf(mixer: Mixer, { x, initialState = [] }: Call): Map<string, Tensor> {
  const states = initialState.map((state, i): [string, Tensor] => [`initialState ${i}`, state]);
  return new Map([["x", x], ...states, ...mixer.namedParameters()]);
}

/** Gradients by the tape. */
export async function gradients(mixer: Mixer, call: Call): Promise<Map<string, ArrayLike<number>>> {
  const leaves = leavesOf(mixer, call);
  const { value, gradients } = valueAndGrad(() => lossOf(mixer, call), [...leaves.values()]);
  value.dispose();
  const found = new Map<string, ArrayLike<number>>();
  for (const [i, name] of [...leaves.keys()].entries()) {
    found.set(name, await gradients[i].data());
    gradients[i].dispose();
  }
  return found;
}

/** Gradients by central differences, in f64. */
export async function differences(mixer: Mixer, call: Call, step = 1e-5): Promise<Map<string, Float64Array>> {
  const at = async () => {
    using loss = scope(() => lossOf(mixer, call));
    return loss.item();
  };
  const found = new Map<string, Float64Array>();
  for (const [name, leaf] of leavesOf(mixer, call)) {
    const values = Float64Array.from(await leaf.data());
    const slopes = new Float64Array(values.length);
    for (const [i, value] of values.entries()) {
      values[i] = value + step;
      leaf.write(values);
      const above = await at();
      values[i] = value - step;
      leaf.write(values);
      slopes[i] = (above - (await at())) / (2 * step);
      values[i] = value;
    }
    leaf.write(values);
    found.set(name, slopes);
  }
  return found;
}

/** Output and final states of a call, as numbers. */
export async function outputs(mixer: Mixer, { x, ...options }: Call): Promise<ArrayLike<number>[]> {
  const tensors = scope(() => {
    const { y, state } = mixer.run(x, options);
    return [y, ...state].map((tensor) => keep(tensor.clone()));
  });
  const found: ArrayLike<number>[] = [];
  for (const tensor of tensors) {
    found.push(await tensor.data());
    tensor.dispose();
  }
  return found;
}
