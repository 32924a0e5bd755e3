// Layer: WebGPU kernels. Random words and masks by counter, for a contiguous output: the same bits as on every backend.
// Knows layouts and the shader's parameters. Knows no device.

import { type Kernels, sizeOf } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { typeConstant } from "./elementwiseForm.js";

const THREADS = 256;

export const randomKernels = (context: KernelContext): Pick<Kernels, "random"> => {
  const { fill } = copyKernels(context);
  return {
    random(out, step, { kind, key, threshold: given = 0 }) {
      const elements = sizeOf(out.shape);
      if (elements === 0) return;
      const threshold = kind === "keep" ? given : 0;
      // No word reaches 2^32.
      if (threshold >= 2 ** 32) return fill(out, 0);
      const vec = kind === "bits" && elements % 4 === 0 && out.offset % 4 === 0;
      const items = Math.ceil(elements / 4);
      context.run({
        shader: "random",
        constants: { ...typeConstant("out", out.dtype), out_vec: vec },
        buffers: { out: vec ? { view: out, vec: 4 } : out, step },
        writes: ["out"],
        uniforms: { items, elements, key_low: key[0], key_high: key[1], threshold },
        groups: Math.ceil(items / THREADS),
      });
    },
  };
};
