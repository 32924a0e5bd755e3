// Layer: WebGPU kernels. Which form of a shader made with lib/elementwise.wgsl suits the layouts at hand: four elements a thread where
// memory allows it or words must be written whole; any layout one by one.
// Knows layouts and the shaders' parameters. Knows no formula and no device.

import { bytesPerElement, type DType, isContiguous, sizeOf, type View } from "@diffmamba/tensor";
import type { BufferUse, Dispatch, KernelContext } from "../context.js";
import type { ShaderName } from "../shaders.generated.js";
import { type Axes, axesArguments, comesInFours, countOf, mergeAxes } from "./axes.js";

/** Items of a workgroup of lib/elementwise.wgsl: two to a thread. */
const GROUP_ITEMS = 512;

/** Operands in the order of their places in lib/elementwise.wgsl. */
const operandNames = ["a", "b", "c"] as const;

export type Flags = Record<string, boolean>;

/** The type of a view's elements, for lib/operand.wgsl and lib/elementwise.wgsl. */
export function typeConstant(name: string, dtype: DType): Flags {
  return { [`${name}_${dtype === "bf16" || dtype === "f16" ? "half" : dtype}`]: true };
}

/** A view of elements of four bytes as whole numbers: for kernels that only move bits. */
export function asBits(view: View): View {
  return view.dtype === "f32" ? { ...view, dtype: "i32" } : view;
}

export function isPacked({ dtype }: View): boolean {
  return dtype === "u8" || dtype === "bf16" || dtype === "f16";
}

/** A packed output that a kernel can write in whole words. */
export function hasWholeWords(view: View): boolean {
  return isContiguous(view) && view.offset % 4 === 0;
}

/** How an operand gives four elements at once: see lib/operand.wgsl. */
type Access = "vec" | "word" | "same" | "each";

function accessOf(view: View, sizes: readonly number[], strides: readonly number[]): Access {
  if (strides[0] === 0) return "same";
  if (!comesInFours(view.offset, sizes, strides)) return "each";
  if (view.dtype === "u8") return "word";
  return isPacked(view) ? "each" : "vec";
}

/** The strides of an operand where the innermost axis counts fours. */
function stridesInFours(access: Access, [inner, ...outer]: readonly number[]): number[] {
  if (access === "each") return [4 * inner, ...outer];
  if (access === "same") return [inner, ...outer];
  return [inner, ...outer.map((stride) => stride / 4)];
}

interface Form {
  readonly axes: Axes;
  readonly items: number;
  readonly constants: Flags;
  readonly accesses: readonly Access[];
  /** What each operand steps by, in elements, along the innermost axis. */
  readonly steps: readonly number[];
}

/** The form of the shader for these layouts; the output comes first. */
function chooseForm(views: readonly View[]): Form {
  const [out, ...inputs] = views;
  const axes = mergeAxes(out.shape, views);
  const count = countOf(axes);
  const { sizes, strides } = axes;
  const inFours = sizes[0] % 4 === 0;
  const steps = strides.map(([inner]) => inner);
  const accesses = inputs.map((view, i) => accessOf(view, sizes, strides[i + 1]));
  const fast = !accesses.includes("each") && comesInFours(out.offset, sizes, strides[0]);
  if (isPacked(out) ? inFours : fast) {
    const outAccess = isPacked(out) ? "each" : "vec";
    const all = [outAccess, ...accesses] as const;
    return {
      axes: {
        sizes: [sizes[0] / 4, ...sizes.slice(1)],
        strides: strides.map((list, i) => stridesInFours(all[i], list)),
      },
      items: count / 4,
      constants: { fours: true, ...(outAccess === "vec" && { out_vec: true }) },
      accesses,
      steps,
    };
  }
  const single = inputs.map((): Access => "each");
  if (isPacked(out)) return { axes, items: Math.ceil(count / 4), constants: { across: true }, accesses: single, steps };
  return { axes, items: count, constants: {}, accesses: single, steps };
}

/** Bytes from a view's first element to behind its last one. */
function spanOf({ shape, strides, dtype }: View): number {
  const last = shape.reduce((sum, n, axis) => sum + (n - 1) * strides[axis], 0);
  return (last + 1) * bytesPerElement[dtype];
}

/** A part of a view along an axis. */
function partOf(view: View, axis: number, from: number, to: number): View {
  const shape = view.shape.map((n, i) => (i === axis ? to - from : n));
  return { ...view, shape, offset: view.offset + from * view.strides[axis] };
}

/**
 * Runs an elementwise kernel on views of one shape: at once, or, where one of them spans more than a dispatch sees of a buffer, on one
 * part of them after the other.
 */
export function inParts(context: KernelContext, views: readonly View[], run: (views: readonly View[]) => void): void {
  const { bindingBytes } = context.limits;
  // A binding begins up to 256 bytes before its view.
  const fits = (view: View) => view.buffer.bytes <= bindingBytes || spanOf(view) <= bindingBytes - 512;
  const [{ shape }] = views;
  const axis = shape.findIndex((n) => n > 1);
  if (views.every(fits) || axis < 0) {
    run(views);
    return;
  }
  // Whole words of packed elements on either side.
  const half = shape[axis] > 8 ? Math.ceil(shape[axis] / 8) * 4 : Math.ceil(shape[axis] / 2);
  for (const [from, to] of [
    [0, half],
    [half, shape[axis]],
  ]) {
    inParts(
      context,
      views.map((view) => partOf(view, axis, from, to)),
      run,
    );
  }
}

/** What a dispatch is but for its buffers: it follows from layouts, types and flags. */
interface Plan {
  readonly constants: Flags;
  readonly uniforms: Readonly<Record<string, number>>;
  /** Which operands are seen as vectors, the output first. */
  readonly vectors: readonly boolean[];
  readonly groups: number;
}

const MOST_PLANS = 1024;

/** A shader made with lib/elementwise.wgsl, with the flags that say what it computes: made once, as it knows its plans. */
export class ElementwiseShader {
  /** Plans by what they follow from: the same few come again in every step. */
  readonly plans = new Map<string | number, Plan>();

  constructor(
    readonly name: ShaderName,
    readonly flags: Flags = {},
  ) {}
}

/** Types of four bytes, by a number below 4. */
const wordTypes: Partial<Record<DType, number>> = { f32: 0, i32: 1 };

/** Whether two lists of numbers are alike. */
function isSame(a: readonly number[], b: readonly number[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether an input is laid out as the output is, and of the same type, both aligned. */
function isAlike(input: View, out: View): boolean {
  return input.dtype === out.dtype && ((input.offset | out.offset) & 3) === 0 && isSame(input.strides, out.strides);
}

/** Views of the shape of `out` without gaps, as most are, count as vectors: any shape of so many elements has the same plan. */
function planKey(inputs: readonly View[], out: View): string | number {
  const gapless = isContiguous(out);
  const type = wordTypes[out.dtype];
  // The usual case, without a text being made.
  if (gapless && type !== undefined && (out.offset & 3) === 0 && inputs.every((input) => isAlike(input, out))) {
    return 4 * sizeOf(out.shape) + type;
  }
  let key = `${out.dtype}${out.offset & 3}`;
  if (gapless && inputs.every(({ strides }) => isSame(strides, out.strides))) {
    key += `|${sizeOf(out.shape)}`;
    for (const { dtype, offset } of inputs) key += `|${dtype}${offset & 3}`;
    return key;
  }
  key += `|${out.shape}|${out.strides}`;
  for (const { dtype, offset, strides } of inputs) key += `|${dtype}${offset & 3}|${strides}`;
  return key;
}

function makePlan(inputs: readonly View[], out: View, flags: Flags): Plan {
  const { axes, items, constants, accesses, steps } = chooseForm([out, ...inputs]);
  const chosen: Flags = { ...constants, ...flags, ...typeConstant("out", out.dtype) };
  const uniforms: Record<string, number> = { items, elements: sizeOf(out.shape) };
  for (const [i, view] of inputs.entries()) {
    const name = operandNames[i];
    Object.assign(chosen, typeConstant(name, view.dtype));
    if (accesses[i] !== "each") chosen[`${name}_${accesses[i]}`] = true;
    uniforms[`${name}_step`] = steps[i + 1];
  }
  const places = axesArguments("item", axes);
  const all = { ...chosen, ...places.constants };
  return {
    constants: Object.fromEntries(Object.entries(all).filter(([, is]) => is)),
    uniforms: { ...uniforms, ...places.uniforms },
    vectors: [constants.out_vec === true, ...accesses.map((access) => access === "vec")],
    groups: Math.ceil(items / GROUP_ITEMS),
  };
}

/** The names of what is written. */
const written = ["out"];

/** Runs an elementwise shader over views of one shape. A packed output has whole words. */
export function runElementwise(
  context: KernelContext,
  { name: shader, flags, plans }: ElementwiseShader,
  inputs: readonly View[],
  out: View,
  told?: Dispatch["uniforms"],
): void {
  const key = planKey(inputs, out);
  let plan = plans.get(key);
  if (plan === undefined) {
    if (plans.size >= MOST_PLANS) plans.clear();
    plan = makePlan(inputs, out, flags);
    plans.set(key, plan);
  }
  const { constants, uniforms, vectors, groups } = plan;
  const buffers: Record<string, BufferUse> = { out: vectors[0] ? { view: out, vec: 4 } : out };
  for (let i = 0; i < inputs.length; i++) {
    buffers[operandNames[i]] = vectors[i + 1] ? { view: inputs[i], vec: 4 } : inputs[i];
  }
  const numbers = told === undefined ? uniforms : { ...uniforms, ...told };
  context.run({ shader, constants, buffers, writes: written, uniforms: numbers, groups, plan });
}
