// Layer: WebGPU kernels. One AdamW step over lists of tensors: what they share, once, then as many parameters to a dispatch as the
// device binds buffers for.
// Knows layouts and the shaders' parameters. Knows no schedule and no parameter group.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import { type BufferUse, type F32, f32, type KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { THREADS } from "./rows.js";

/** The names of the parameters of one dispatch. */
const NAMES = ["a", "b", "c"];

/** What the update of one parameter reads and writes, by the names in lib/adamw-update.wgsl. */
interface Parameter {
  readonly views: Readonly<Record<"p" | "g" | "m" | "v", View>>;
  /** Whether all may be read in fours. */
  readonly fours: boolean;
  readonly items: number;
  readonly weightDecay: number;
  /** A half-precision copy that is made in the same pass. */
  readonly copy: View | undefined;
}

function parameterOf(views: Parameter["views"], weightDecay: number, copy: View | undefined): Parameter {
  const size = sizeOf(views.p.shape);
  const offsets = [...Object.values(views), ...(copy ? [copy] : [])].map(({ offset }) => offset);
  const fours = [size, ...offsets].every((n) => n % 4 === 0);
  return { views, fours, items: size / (fours ? 4 : 1), weightDecay, copy };
}

/** log(beta) as far as a shader may see it: for 0 any number whose powers of e vanish. */
function logarithm(beta: number): number {
  return Math.max(Math.log(beta), -1e4);
}

export const adamwKernels = (context: KernelContext): Required<Pick<Kernels, "adamw">> => {
  const { copy } = copyKernels(context);
  const atOnce = (buffersEach: number) =>
    Math.max(1, Math.min(NAMES.length, Math.floor((context.limits.buffers - 1) / buffersEach)));

  /** An f32 view with the values of `view`: itself, or a copy of half precision. */
  const widened = (view: View): View => {
    if (view.dtype === "f32" || sizeOf(view.shape) === 0) return view;
    const wide = context.temporary(view.shape);
    copy(view, wide);
    return wide;
  };

  const update = (parameters: readonly Parameter[], rates: View, shared: Readonly<Record<string, F32>>): void => {
    const { fours } = parameters[0];
    const buffers: Record<string, BufferUse> = { rates };
    const uniforms: Record<string, number | F32> = { ...shared };
    const constants: Record<string, boolean> = { fours };
    const writes: string[] = [];
    let groups = 0;
    for (const [i, { views, items, weightDecay, copy: half }] of parameters.entries()) {
      const name = NAMES[i];
      for (const [part, view] of Object.entries(views)) {
        buffers[`${name}_${part}`] = fours ? { view, vec: 4 } : view;
        if (part !== "g") writes.push(`${name}_${part}`);
      }
      if (half !== undefined) {
        buffers[`${name}_copy`] = fours ? half : { view: half, atomic: true };
        constants[`${name}_${half.dtype}`] = true;
        writes.push(`${name}_copy`);
      }
      uniforms[`${name}_items`] = items;
      uniforms[`${name}_decay`] = f32(weightDecay);
      uniforms[`${name}_from`] = groups;
      groups += Math.ceil(items / THREADS);
    }
    context.run({ shader: "adamw", constants, buffers, writes, uniforms, groups });
  };

  return {
    adamw({ params, grads, m, v, copies, lr, step, scale, norm }, { beta1, beta2, eps, weightDecay }) {
      const rates = context.temporary([5]);
      context.run({
        shader: "adamw-rates",
        buffers: { lr, step, scale, norm, out: rates },
        writes: ["step", "out"],
        uniforms: { log_beta1: f32(logarithm(beta1)), log_beta2: f32(logarithm(beta2)) },
        groups: 1,
      });
      const shared = {
        beta1: f32(beta1),
        other1: f32(1 - beta1),
        beta2: f32(beta2),
        other2: f32(1 - beta2),
        eps: f32(eps),
      };
      const wide = params.map(widened);
      const parameters = params.flatMap((param, i) => {
        if (sizeOf(param.shape) === 0) return [];
        return [parameterOf({ p: wide[i], g: widened(grads[i]), m: m[i], v: v[i] }, weightDecay[i], copies?.[i])];
      });
      for (const fours of [true, false]) {
        for (const copied of [true, false]) {
          const list = parameters.filter((one) => one.fours === fours && (one.copy !== undefined) === copied);
          const count = atOnce(copied ? 5 : 4);
          for (let from = 0; from < list.length; from += count) update(list.slice(from, from + count), rates, shared);
        }
      }
      for (const [i, param] of params.entries()) if (wide[i] !== param) copy(wide[i], param);
    },
  };
};
