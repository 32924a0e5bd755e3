// Layer: CUDA kernels. The cross-entropy and its gradient, and drawing tokens: a block to a row.
// Knows layouts and native/kernels/loss.cu. Knows no formula.

import { bytesPerElement, type Kernels } from "@diffmamba/tensor";
import { f32, i32, type KernelContext, pointer } from "../context.js";
import { pitchArgument, vectorFor } from "./rows.js";

/** Bytes of shared memory that the drawing of a token takes beside the row, and more. */
const SAMPLE_SCRATCH = 4096;

const vectorOf = (dtype: string): number => (dtype === "f32" ? 4 : 8);

export const lossKernels = (
  context: KernelContext,
): Pick<Kernels, "softmaxCrossEntropy" | "softmaxCrossEntropyBackward" | "sample"> => ({
  softmaxCrossEntropy: ({ logits, targets }, { losses, logSumExp }, { ignoreIndex }) => {
    const [rows, width] = logits.shape;
    const vector = vectorFor(vectorOf(logits.dtype), width, [logits]);
    context.launch({
      kernel: `cross_entropy_${logits.dtype}_v${vector}`,
      grid: rows,
      block: width > 2048 ? 512 : 128,
      args: [
        ...[logits, targets, losses, logSumExp].map(pointer),
        i32(width),
        pitchArgument("softmaxCrossEntropy: logits", logits),
        i32(ignoreIndex),
      ],
    });
  },
  softmaxCrossEntropyBackward: ({ logits, targets, logSumExp, dlosses }, { dlogits }, { ignoreIndex }) => {
    if (dlogits === undefined) return;
    const [rows, width] = logits.shape;
    const vector = vectorFor(vectorOf(logits.dtype), width, [logits, dlogits]);
    const threads = 256;
    context.launch({
      kernel: `cross_entropy_backward_${logits.dtype}_v${vector}`,
      grid: [rows, Math.ceil(width / vector / threads)],
      block: threads,
      args: [
        ...[logits, targets, logSumExp, dlosses, dlogits].map(pointer),
        i32(width),
        pitchArgument("softmaxCrossEntropyBackward: logits", logits),
        pitchArgument("softmaxCrossEntropyBackward: dlogits", dlogits),
        i32(ignoreIndex),
      ],
    });
  },
  sample: ({ logits, keys, positions }, { tokens, logprobs }, { temperature, topK, topP, minP }) => {
    const [rows, width] = logits.shape;
    const bytes = 4 * width;
    // The greatest is found as the row comes: it is read once.
    const cached = temperature !== 0 && bytes + SAMPLE_SCRATCH <= context.device.sharedPerBlock;
    context.launch({
      kernel: `sample_${logits.dtype}`,
      grid: rows,
      block: 1024,
      shared: cached ? bytes : 0,
      overlap: true,
      args: [
        ...[logits, keys, positions, tokens, logprobs].map(pointer),
        pitchArgument("sample: logits", logits),
        i32(width),
        f32(temperature),
        i32(topK),
        f32(topP),
        f32(minP),
        i32(cached),
        i32(vectorFor(16 / bytesPerElement[logits.dtype], width, [logits]) > 1),
      ],
    });
  },
});
