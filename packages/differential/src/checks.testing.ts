// Layer: tests of differential. Runs a mixer with everything that flows through it, and its gradients by published names.
// Is no part of the package.

import { Build, init, unpack } from "@diffmamba/nn";
import type { Mixer } from "@diffmamba/ssm";
import { type Device, keep, type SequenceOptions, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";

export type Float = "f32" | "f64";
export type Numbers = ArrayLike<number>;

/** rms(a - b) / rms(b), or rms(a - b) where b is zero; NaN where the sizes differ. */
export function relativeError(a: Numbers, b: Numbers): number {
  if (a.length !== b.length) return Number.NaN;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  const scale = Math.sqrt(size / b.length);
  return Math.sqrt(difference / b.length) / (scale < 1e-6 ? 1 : scale);
}

/** Normally distributed numbers by name, which live until they are disposed of or the device is. */
export function noise(device: Device, shape: readonly number[], name: string, dtype: Float, std = 1): Tensor {
  return new Build({ device, dtype, seed: 7 }).parameter(name, shape, init.normal(std));
}

/** Moves every parameter away from its first value, which may be special: zeros, ones. */
export function randomize(mixer: Mixer, std = 0.3): void {
  for (const [name, parameter] of mixer.namedParameters()) {
    using own = noise(mixer.device, parameter.shape, name, parameter.dtype as Float, std);
    parameter.addInPlace(own);
  }
}

export interface Call extends SequenceOptions {
  readonly x: Tensor;
  readonly initialState?: readonly Tensor[];
}

export interface Run {
  readonly y: Numbers;
  readonly state: readonly Numbers[];
  /** Of a weighted sum of y and the states: by x, by the initial states, and by parameters under their published names. */
  readonly gradients: ReadonlyMap<string, Numbers>;
}

/** Output, states and all gradients. `weights` are those of y and of each state in the sum. */
export async function run(mixer: Mixer, { x, ...options }: Call, weights: readonly Tensor[]): Promise<Run> {
  const initialState = options.initialState ?? [];
  const parameters = mixer.parameters();
  const outputs: Tensor[] = [];
  const { value, gradients } = valueAndGrad(() => {
    const { y, state } = mixer.run(x, options);
    const parts = [y, ...state];
    outputs.push(...parts.map((part) => keep(part.clone())));
    return parts.map((part, i) => part.mul(weights[i]).sum()).reduce((sum, part) => sum.add(part));
  }, [x, ...initialState, ...parameters]);
  value.dispose();
  const byParameter = new Map(parameters.map((parameter, i) => [parameter, gradients[1 + initialState.length + i]]));
  const published = await unpack(mixer.published(), async (parameter) => {
    const gradient = byParameter.get(parameter);
    if (gradient === undefined) throw new Error("a published tensor has no parameter");
    return gradient.hostData();
  });
  const found = new Map<string, Numbers>([...published].map(([name, { data }]) => [name, data]));
  found.set("x", await gradients[0].data());
  for (let i = 0; i < initialState.length; i++) found.set(`initialState ${i}`, await gradients[1 + i].data());
  const [y, ...state] = await Promise.all(outputs.map((tensor) => tensor.data()));
  for (const tensor of [...outputs, ...gradients]) tensor.dispose();
  return { y, state, gradients: found };
}

/** Output and final states alone. */
export async function outputs(mixer: Mixer, { x, ...options }: Call): Promise<Numbers[]> {
  const tensors = scope(() => {
    const { y, state } = mixer.run(x, options);
    return [y, ...state].map((tensor) => keep(tensor.clone()));
  });
  const found = await Promise.all(tensors.map((tensor) => tensor.data()));
  for (const tensor of tensors) tensor.dispose();
  return found;
}
