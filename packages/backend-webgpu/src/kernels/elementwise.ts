// Layer: WebGPU kernels. unary, binary, compare and where.
// Knows the shaders' parameters. Knows no formula and no device.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { asBits, ElementwiseShader, hasWholeWords, inParts, isPacked, runElementwise } from "./elementwiseForm.js";

/** The shader of each op of a kind, made when it is first asked for. */
function shadersOf(name: "unary" | "binary"): (op: string) => ElementwiseShader {
  const made = new Map<string, ElementwiseShader>();
  return (op) => {
    let shader = made.get(op);
    if (shader === undefined) {
      shader = new ElementwiseShader(name, { [`op_${op}`]: true });
      made.set(op, shader);
    }
    return shader;
  };
}

const unaryShader = shadersOf("unary");
const binaryShader = shadersOf("binary");
const whereShader = new ElementwiseShader("where");

export const elementwiseKernels = (context: KernelContext): Pick<Kernels, "unary" | "binary" | "compare" | "where"> => {
  const { copy } = copyKernels(context);

  const run = (shader: ElementwiseShader, inputs: readonly View[], out: View): void => {
    if (sizeOf(out.shape) === 0) return;
    if (!isPacked(out) || hasWholeWords(out)) {
      runElementwise(context, shader, inputs, out);
      return;
    }
    const whole = context.temporary(out.shape, out.dtype);
    runElementwise(context, shader, inputs, whole);
    copy(whole, out);
  };

  const whole = (shader: ElementwiseShader, inputs: readonly View[], out: View): void =>
    inParts(context, [out, ...inputs], ([to, ...from]) => run(shader, from, to));

  return {
    unary: (op, x, out) => whole(unaryShader(op), [x], out),
    binary: (op, a, b, out) => whole(binaryShader(op), [a, b], out),
    compare: (op, a, b, out) => whole(binaryShader(op), [a, b], out),
    where: (condition, a, b, out) => whole(whereShader, [asBits(a), asBits(b), condition], asBits(out)),
  };
};
