// Layer: WebGPU kernels. Drawing tokens: a workgroup to each row of logits.
// Knows layouts and the shader's parameters. Knows no formula.

import type { Kernels } from "@diffmamba/tensor";
import { f32, type KernelContext } from "../context.js";
import { THREADS } from "./rows.js";

export const sampleKernels = (context: KernelContext): Required<Pick<Kernels, "sample">> => ({
  sample({ logits, keys, positions }, { tokens, logprobs }, { temperature, topK, topP, minP }) {
    const [rows, classes] = logits.shape;
    if (rows === 0 || classes === 0) return;
    const filters = { top_k: topK > 0 && topK < classes, top_p: topP < 1, min_p: minP > 0 };
    context.run({
      shader: "sample",
      constants: temperature === 0 ? { greedy: true } : filters,
      buffers: { logits, keys, positions, tokens, logprobs },
      writes: ["tokens", "logprobs"],
      uniforms: {
        rows,
        classes,
        piece: Math.ceil(classes / THREADS),
        temperature: f32(temperature),
        k: topK,
        p: f32(topP),
        log_min_p: f32(minP > 0 ? Math.log(minP) : 0),
      },
      groups: rows,
    });
  },
});
