// Layer: WebGPU kernels. Cross-entropy of a softmax and its gradient: how rows of logits are shared out over threads.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Kernels, sizeOf } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { copyKernels } from "./copy.js";
import { joiningConstants, rowUses, THREADS, teamFor, unrolling } from "./rows.js";

type CrossEntropy = Pick<Kernels, "softmaxCrossEntropy" | "softmaxCrossEntropyBackward">;

/** Items of a row to a thread, before a row gets more threads. */
const ITEMS_PER_THREAD = 16;

/** Items that a thread has under way at once: of four elements, or of one. */
const BATCH = { fours: 4, ones: 8 };

export const softmaxCrossEntropyKernels = (context: KernelContext): Required<CrossEntropy> => {
  const { fill } = copyKernels(context);
  return {
    softmaxCrossEntropy({ logits, targets }, { losses, logSumExp }, { ignoreIndex }) {
      const [rows, classes] = logits.shape;
      if (rows === 0 || classes === 0) return;
      const { fours, unit, buffers, pitches } = rowUses("softmaxCrossEntropy", classes, { logits });
      const items = classes / unit;
      const { team } = teamFor(items, ITEMS_PER_THREAD);
      context.run({
        shader: "softmax-cross-entropy",
        constants: {
          ...joiningConstants(context),
          ...unrolling(context),
          ...{ fours, team, batch: fours ? BATCH.fours : BATCH.ones },
        },
        buffers: { ...buffers, targets, losses, logSumExp },
        writes: ["losses", "logSumExp"],
        uniforms: { ...pitches, rows, classes, items, ignored: ignoreIndex >>> 0 },
        groups: Math.ceil(rows / (THREADS / team)),
      });
    },

    softmaxCrossEntropyBackward({ logits, targets, logSumExp, dlosses }, { dlogits }, { ignoreIndex }) {
      if (dlogits === undefined || sizeOf(dlogits.shape) === 0) return;
      if (dlosses === undefined) {
        fill(dlogits, 0);
        return;
      }
      const [rows, classes] = logits.shape;
      const { fours, unit, buffers, pitches } = rowUses("softmaxCrossEntropyBackward", classes, { logits, dlogits });
      const items = classes / unit;
      const { team } = teamFor(items, ITEMS_PER_THREAD);
      context.run({
        shader: "softmax-cross-entropy-backward",
        constants: { ...unrolling(context), fours, team, batch: fours ? BATCH.fours : BATCH.ones },
        buffers: { ...buffers, targets, logSumExp, dlosses },
        writes: ["dlogits"],
        uniforms: { ...pitches, rows, classes, items, ignored: ignoreIndex >>> 0 },
        groups: Math.ceil(rows / (THREADS / team)),
      });
    },
  };
};
