// Layer: WebGPU kernels. Copies between any layouts and element types, and fill.
// Knows layouts and the shaders' parameters. Knows no device.

import { f32ToBf16, f32ToF16, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { type Axes, axesArguments, countOf, mergeAxes } from "./axes.js";
import {
  asBits,
  ElementwiseShader,
  type Flags,
  hasWholeWords,
  inParts,
  isPacked,
  runElementwise,
  typeConstant,
} from "./elementwiseForm.js";

const THREADS = 256;

/** Rows and columns of a tile of copy-transposed.wgsl. */
const TILE = 32;

/** Elements of a side from which on a transposing copy goes by tiles. */
const MIN_SIDE = 16;

const word = new Int32Array(1);
const float = new Float32Array(word.buffer);

/** The bits of a number as an element, as JavaScript's typed arrays convert. */
function bitsOf(value: number, { dtype }: View): number {
  switch (dtype) {
    case "bf16":
      return f32ToBf16(value);
    case "f16":
      return f32ToF16(value);
    case "i32":
      return value | 0;
    case "u8":
      return value & 0xff;
    default:
      float[0] = value;
      return word[0];
  }
}

const fillShader = new ElementwiseShader("fill");
const copyShaders = new Map<string, ElementwiseShader>();

/** The shader that copies and converts between two types, made when it is first asked for. */
function copyShader(from: View, to: View): ElementwiseShader {
  const key = from.dtype === to.dtype ? "same" : `${from.dtype} ${to.dtype}`;
  let shader = copyShaders.get(key);
  if (shader === undefined) {
    shader = new ElementwiseShader("copy", conversionFlags(from, to));
    copyShaders.set(key, shader);
  }
  return shader;
}

function conversionFlags(from: View, to: View): Flags {
  return from.dtype === to.dtype ? { same: true } : { [`from_${from.dtype}`]: true, [`to_${to.dtype}`]: true };
}

/** A matrix whose rows are the output's columns, and axes that number several such. */
interface Transposition {
  readonly outer: Axes;
  readonly across: number;
  readonly down: number;
  readonly pitch: number;
  readonly outPitch: number;
}

/** Where the output's innermost axis is another than the input's, both large enough. */
function transpositionOf(x: View, out: View): Transposition | undefined {
  const { sizes, strides } = mergeAxes(out.shape, [out, x]);
  const [outSteps, steps] = strides;
  const column = steps.indexOf(1);
  if (outSteps[0] !== 1 || column <= 0 || sizes[0] < MIN_SIDE || sizes[column] < MIN_SIDE) return undefined;
  const rest = sizes.flatMap((_, axis) => (axis === 0 || axis === column ? [] : [axis]));
  const pick = (list: readonly number[]) => rest.map((axis) => list[axis]);
  const outer: Axes =
    rest.length === 0
      ? { sizes: [1], strides: [[0], [0]] }
      : { sizes: pick(sizes), strides: [pick(outSteps), pick(steps)] };
  return { outer, across: sizes[column], down: sizes[0], pitch: steps[0], outPitch: outSteps[column] };
}

function copyTransposed(context: KernelContext, x: View, out: View, plan: Transposition): void {
  const { outer, across, down, pitch, outPitch } = plan;
  const outers = countOf(outer);
  const [tilesAcross, tilesDown] = [Math.ceil(across / TILE), Math.ceil(down / TILE)];
  const places = axesArguments("outer", outer);
  context.run({
    shader: "copy-transposed",
    constants: places.constants,
    buffers: { a: x, out },
    writes: ["out"],
    uniforms: {
      ...places.uniforms,
      outers,
      across,
      down,
      tiles_across: tilesAcross,
      tiles_down: tilesDown,
      a_pitch: pitch,
      out_pitch: outPitch,
    },
    groups: outers * tilesAcross * tilesDown,
  });
}

/** Into a packed layout with gaps. */
function copyScattered(context: KernelContext, x: View, out: View): void {
  const axes = mergeAxes(out.shape, [out, x]);
  const items = countOf(axes);
  const places = axesArguments("item", axes);
  context.run({
    shader: "copy-scattered",
    constants: {
      ...typeConstant("a", x.dtype),
      ...typeConstant("out", out.dtype),
      ...conversionFlags(x, out),
      ...places.constants,
    },
    buffers: { a: x, out: { view: out, atomic: true } },
    writes: ["out"],
    uniforms: { ...places.uniforms, items, a_step: 1 },
    groups: Math.ceil(items / THREADS),
  });
}

export const copyKernels = (context: KernelContext): Pick<Kernels, "copy" | "fill"> => {
  const copy = (x: View, out: View): void => {
    if (sizeOf(out.shape) > 0) inParts(context, [out, x], ([to, from]) => copyPart(from, to));
  };

  const copyPart = (from: View, to: View): void => {
    if (isPacked(to) && !hasWholeWords(to)) {
      copyScattered(context, from, to);
      return;
    }
    const same = from.dtype === to.dtype;
    const [x, out] = same ? [asBits(from), asBits(to)] : [from, to];
    const transposition = same && !isPacked(to) ? transpositionOf(x, out) : undefined;
    if (transposition !== undefined) copyTransposed(context, x, out, transposition);
    else runElementwise(context, copyShader(x, out), [x], out);
  };

  return {
    copy,
    fill(out, value) {
      if (sizeOf(out.shape) === 0) return;
      const uniforms = { value: bitsOf(value, out) };
      inParts(context, [out], ([to]) => {
        if (!isPacked(to) || hasWholeWords(to)) {
          runElementwise(context, fillShader, [], asBits(to), uniforms);
          return;
        }
        const whole = context.temporary(to.shape, to.dtype);
        runElementwise(context, fillShader, [], whole, uniforms);
        copyPart(whole, to);
      });
    },
  };
};
