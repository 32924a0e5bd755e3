// AdamW (Loshchilov and Hutter 2019) and the global norm of gradients, over lists of tensors, outside any tape.
// Everything that changes between steps is a tensor on the device: learning rate, step, clip factor.
// Knows shapes. Knows no schedule, no parameter group and no loop.

import { BackendError, formatShape, ShapeError } from "../errors.js";
import { floats, type OpSpec, sameDevice } from "../op.js";
import type { AdamWOptions } from "../routineKernels.js";
import type { Tensor } from "../tensor.js";

export interface AdamWTensors {
  readonly params: readonly Tensor[];
  readonly grads: readonly Tensor[];
  /** First and second moments, shaped like the parameters. */
  readonly m: readonly Tensor[];
  readonly v: readonly Tensor[];
  /** bf16 or f16 tensors that become the parameters' new values, rounded, where there are any. */
  readonly copies?: readonly (Tensor | undefined)[];
  /** () f32 */
  readonly lr: Tensor;
  /** () i32, steps done so far. */
  readonly step: Tensor;
  /** () f32, factor on the gradients. */
  readonly scale: Tensor;
  /** () f32, norm of the gradients: where it is not finite, nothing changes. */
  readonly norm: Tensor;
}

/** One step: `params`, `m`, `v`, `copies` and `step` change in place. @throws ShapeError */
export function adamw(tensors: AdamWTensors, options: AdamWOptions): void {
  const { params, grads, m, v, copies, lr, step, scale, norm } = tensors;
  const { kernels, name } = step.device.backend;
  if (kernels.adamw === undefined) throw new BackendError(`adamw: the backend ${name} has no such kernel.`);
  for (const [i, param] of params.entries()) {
    for (const [what, list] of [
      ["gradient", grads],
      ["m", m],
      ["v", v],
    ] as const) {
      const x = list[i];
      if (x === undefined || x.size !== param.size || !x.isContiguous() || !param.isContiguous()) {
        throw new ShapeError(
          `adamw: parameter ${i} is ${formatShape(param.shape)}, but its ${what} is ${x ? formatShape(x.shape) : "missing"}; both must be contiguous and of one shape.`,
        );
      }
    }
    const copy = copies?.[i];
    if (copy !== undefined && (copy.size !== param.size || !copy.isContiguous())) {
      throw new ShapeError(
        `adamw: parameter ${i} is ${formatShape(param.shape)}, but its copy is ${formatShape(copy.shape)}; both must be contiguous and of one shape.`,
      );
    }
    sameDevice("adamw", step, param, grads[i], m[i], v[i], copy);
  }
  const see = (list: readonly Tensor[]) => list.map((x) => x.view());
  kernels.adamw(
    {
      params: see(params),
      grads: see(grads),
      m: see(m),
      v: see(v),
      ...(copies?.some((copy) => copy !== undefined) && { copies: copies.map((copy) => copy?.view()) }),
      lr: lr.view(),
      step: step.view(),
      scale: scale.view(),
      norm: norm.view(),
    },
    options,
  );
  for (const changed of [...params, ...m, ...v, ...(copies ?? []), step]) if (changed) changed.storage.version++;
}

/** The square root of the sum of all squares of all tensors: () f32 (f64 for f64). */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const [first, ...others] = tensors;
  if (first === undefined) throw new ShapeError("globalNorm: there are no tensors.");
  sameDevice("globalNorm", first, ...others);
  const { kernels, name } = first.device.backend;
  if (kernels.globalNorm === undefined) throw new BackendError(`globalNorm: the backend ${name} has no such kernel.`);
  const out = first.device.empty([], first.dtype === "f64" ? "f64" : "f32");
  const whole = tensors.map((x) => x.contiguous());
  kernels.globalNorm(
    whole.map((x) => x.view()),
    out.view(),
  );
  for (const [i, x] of whole.entries()) if (x !== tensors[i]) x.dispose();
  return out;
}

export const specs: readonly OpSpec[] = [
  { name: "adamw", kind: "routine", dtypes: ["f32", "f64"], accumulates: "f32", gradients: [], saves: "nothing" },
  { name: "globalNorm", kind: "routine", dtypes: floats, accumulates: "f32", gradients: [], saves: "nothing" },
];
