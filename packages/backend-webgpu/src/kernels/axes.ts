// Layer: WebGPU kernels. Layouts made simple for a shader: axes that are one merged, and told to lib/axes.wgsl by uniforms.
// Knows layouts. Knows no op and no device.

import type { View } from "@diffmamba/tensor";

/** Axes that lib/axes.wgsl takes. */
const MAX_AXES = 6;

/** What a view is made of, as far as axes go. */
export type Strided = Pick<View, "shape" | "strides">;

/** Sizes of axes, innermost first, and what each operand steps by along them. There is always at least one axis. */
export interface Axes {
  readonly sizes: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/** Axes of size 1 dropped, and neighbours merged where every operand steps through them as through one axis. */
export function mergeAxes(shape: readonly number[], operands: readonly Strided[]): Axes {
  const sizes: number[] = [];
  const strides: number[][] = operands.map(() => []);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    const last = sizes.length - 1;
    const joins = last >= 0 && operands.every((x, i) => x.strides[axis] === strides[i][last] * sizes[last]);
    if (joins) {
      sizes[last] *= shape[axis];
      continue;
    }
    sizes.push(shape[axis]);
    for (const [i, x] of operands.entries()) strides[i].push(x.strides[axis]);
  }
  if (sizes.length > 0) return { sizes, strides };
  return { sizes: [1], strides: operands.map(() => [0]) };
}

/** The product of all sizes. */
export function countOf({ sizes }: Axes): number {
  return sizes.reduce((product, n) => product * n, 1);
}

/** Whether elements of an operand can be taken four at a time along the innermost axis: in line, and aligned everywhere. */
export function comesInFours(offset: number, sizes: readonly number[], strides: readonly number[]): boolean {
  const [inner, ...outer] = strides;
  return inner === 1 && sizes[0] % 4 === 0 && offset % 4 === 0 && outer.every((stride) => stride % 4 === 0);
}

export interface AxesArguments {
  readonly constants: Record<string, boolean>;
  readonly uniforms: Record<string, number>;
}

/** What lib/axes.wgsl, included as axes(`name`), needs to know. At most four operands: x, y, z, w. */
export function axesArguments(name: string, { sizes, strides }: Axes): AxesArguments {
  const constants: Record<string, boolean> = {};
  for (let n = 2; n <= MAX_AXES; n++) constants[`${name}_axes_${n}`] = sizes.length >= n;
  const uniforms: Record<string, number> = {};
  for (let axis = 0; axis < sizes.length; axis++) {
    const outermost = axis === sizes.length - 1;
    if (!outermost) uniforms[`${name}_size_${axis}`] = sizes[axis];
    for (const [i, operand] of ["x", "y", "z", "w"].entries()) {
      uniforms[outermost ? `${name}_${operand}` : `${name}_${operand}_${axis}`] = strides[i]?.[axis] ?? 0;
    }
  }
  return { constants, uniforms };
}
