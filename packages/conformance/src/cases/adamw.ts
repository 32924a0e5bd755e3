// Layer: conformance. Cases of the optimizer's step and of the norm of lists of gradients, both outside any tape.
// Knows the ops' calls. Knows no device by name.

import { type AdamWTensors, adamw, globalNorm, type Tensor } from "@diffmamba/tensor";
import { type OpCase, opCase } from "./case.js";
import { constant, given, type InputSpec, statistic, uniform } from "./inputs.js";

const sizes: readonly (readonly number[])[] = [[7, 5], [11], [], [3, 0], [70, 67]];

type Slot = "p" | "g" | "m" | "v";

const ranges: Readonly<Record<Slot, readonly [number, number]>> = {
  p: [-1, 1],
  g: [-1, 1],
  m: [-0.1, 0.1],
  v: [1e-4, 1e-2],
};

const slots = Object.keys(ranges) as Slot[];

function lists(): Record<string, InputSpec> {
  const specs = slots.flatMap((slot) => {
    // The moments are f32 beside parameters and gradients of any float.
    const draw = slot === "p" || slot === "g" ? uniform : statistic;
    return sizes.map((shape, i): [string, InputSpec] => [`${slot}${i}`, constant(draw(shape, ...ranges[slot]))]);
  });
  return Object.fromEntries(specs);
}

interface Scalars {
  readonly step: number;
  readonly scale: number;
  readonly norm: number;
}

function scalars({ step, scale, norm }: Scalars): Record<string, InputSpec> {
  const number = (value: number) => constant(given([], [value], "statistic"));
  return { lr: number(3e-3), step: given([], [step], "i32"), scale: number(scale), norm: number(norm) };
}

function adamwCase(name: string, values: Scalars): OpCase {
  return opCase({
    op: "adamw",
    name,
    inputs: { ...lists(), ...scalars(values) },
    outputs: (inputs: Readonly<Record<string, Tensor>>) => {
      const copies = (slot: Slot) => sizes.map((_, i) => inputs[`${slot}${i}`].clone());
      const { lr, scale, norm } = inputs;
      const tensors: AdamWTensors = {
        params: copies("p"),
        grads: copies("g"),
        m: copies("m"),
        v: copies("v"),
        lr,
        step: inputs.step.clone(),
        scale,
        norm,
      };
      adamw(tensors, { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: [0.1, 0, 0.2, 0.1, 0.05] });
      const named = (slot: Slot, list: readonly Tensor[]) => list.map((x, i) => [`${slot}${i}`, x] as const);
      const { params, m, v, step } = tensors;
      return Object.fromEntries([...named("p", params), ...named("m", m), ...named("v", v), ["step", step] as const]);
    },
  });
}

const adamwCases = [
  adamwCase("the first step", { step: 0, scale: 1, norm: 1 }),
  adamwCase("a later step, with clipped gradients", { step: 999, scale: 0.37, norm: 2.7 }),
  adamwCase("nothing changes where the norm is infinite", { step: 4, scale: 1, norm: Number.POSITIVE_INFINITY }),
  adamwCase("nothing changes where the norm is NaN", { step: 4, scale: 1, norm: Number.NaN }),
];

const half = (list: readonly Tensor[], i: number) => list[i].cast("bf16");

/** What is rounded must be the value that is stored: compared with the cast of it, exactly. */
const copyCase = opCase({
  op: "adamw",
  name: "with bf16 copies of some parameters, and gradients of their type",
  dtypes: ["f32"],
  needs: ["bf16"],
  inputs: { ...lists(), ...scalars({ step: 9, scale: 0.5, norm: 1 }) },
  outputs: (inputs: Readonly<Record<string, Tensor>>) => {
    const take = (slot: Slot) => sizes.map((_, i) => inputs[`${slot}${i}`].clone());
    const [params, grads, m, v] = [take("p"), take("g"), take("m"), take("v")];
    const copies = [params[0].device.zeros(sizes[0], "bf16"), undefined, undefined, undefined, half(params, 4)];
    const mixed = grads.map((gradient, i) => (i === 4 ? half(grads, 4) : gradient));
    const { lr, scale, norm } = inputs;
    adamw(
      { params, grads: mixed, m, v, copies, lr, step: inputs.step.clone(), scale, norm },
      { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: [0.1, 0, 0.2, 0.1, 0.05] },
    );
    const same = [0, 4].map((i) => (copies[i] as Tensor).equal(params[i].cast("bf16")).cast("i32").sum());
    return { p0: params[0], p1: params[1], same0: same[0], same4: same[1] };
  },
});

const skippedCopyCase = opCase({
  op: "adamw",
  name: "a copy stays where the norm is not finite",
  dtypes: ["f32"],
  needs: ["bf16"],
  inputs: { ...lists(), ...scalars({ step: 9, scale: 1, norm: Number.NaN }) },
  outputs: (inputs: Readonly<Record<string, Tensor>>) => {
    const one = (slot: Slot) => [inputs[`${slot}0`].clone()];
    const copy = inputs.p0.device.full(sizes[0], 3, "bf16");
    const { lr, scale, norm } = inputs;
    adamw(
      {
        params: one("p"),
        grads: one("g"),
        m: one("m"),
        v: one("v"),
        copies: [copy],
        lr,
        step: inputs.step.clone(),
        scale,
        norm,
      },
      { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: [0.1] },
    );
    return { copy: copy.cast("f32") };
  },
});

const normCases = [
  opCase({
    op: "globalNorm",
    name: "several tensors",
    inputs: {
      a: constant(uniform([3, 7])),
      b: constant(uniform([])),
      c: constant(uniform([0])),
      d: constant(uniform([67, 33])),
    },
    outputs: ({ a, b, c, d }) => ({
      y: globalNorm([a, b, c, d]),
      one: globalNorm([b]),
      view: globalNorm([d.transpose()]),
    }),
  }),
  opCase({
    op: "globalNorm",
    name: "tensors of two types",
    dtypes: ["f32"],
    needs: ["bf16"],
    inputs: { a: constant(uniform([3, 7])), b: constant(given([4], [1.5, -2, 0.25, 96])) },
    outputs: ({ a, b }) => ({ y: globalNorm([a, b.cast("bf16")]) }),
  }),
];

export const optimizerCases: readonly OpCase[] = [...adamwCases, copyCase, skippedCopyCase, ...normCases];
