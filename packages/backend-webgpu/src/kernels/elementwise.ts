// Layer: WebGPU kernels. unary, binary, compare and where.
// Knows the shaders' parameters. Knows no formula and no device.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import type { ShaderName } from "../shaders.generated.js";
import { copyKernels } from "./copy.js";
import { asBits, hasWholeWords, inParts, isPacked, runElementwise } from "./elementwiseForm.js";

export const elementwiseKernels = (context: KernelContext): Pick<Kernels, "unary" | "binary" | "compare" | "where"> => {
  const { copy } = copyKernels(context);

  const run = (shader: ShaderName, op: string | undefined, inputs: readonly View[], out: View): void => {
    if (sizeOf(out.shape) === 0) return;
    const extras = op === undefined ? {} : { flags: { [`op_${op}`]: true } };
    if (!isPacked(out) || hasWholeWords(out)) {
      runElementwise(context, shader, inputs, out, extras);
      return;
    }
    const whole = context.temporary(out.shape, out.dtype);
    runElementwise(context, shader, inputs, whole, extras);
    copy(whole, out);
  };

  const whole = (shader: ShaderName, op: string | undefined, inputs: readonly View[], out: View): void =>
    inParts(context, [out, ...inputs], ([to, ...from]) => run(shader, op, from, to));

  return {
    unary: (op, x, out) => whole("unary", op, [x], out),
    binary: (op, a, b, out) => whole("binary", op, [a, b], out),
    compare: (op, a, b, out) => whole("binary", op, [a, b], out),
    where: (condition, a, b, out) => whole("where", undefined, [asBits(a), asBits(b), condition], asBits(out)),
  };
};
