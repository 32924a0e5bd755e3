// Layer: CUDA kernels. globalNorm and adamw over lists of tensors: the tables by which one launch finds all of them.
// Knows layouts and native/kernels/optimizer.cu. Knows no parameter by name.

import { type DType, type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import { addressOf, f32, i32, isAligned, type KernelContext, pointer } from "../context.js";

/** Elements that a block takes of one tensor: kChunk of native/kernels/optimizer.cu. */
const CHUNK = 16384;

/** Types by their numbers there. */
const typeNumbers: Partial<Record<DType, number>> = { f32: 0, bf16: 1, f16: 2 };
const typeOf = ({ dtype }: View): number => typeNumbers[dtype] ?? 0;

/** Whether four elements at a time are aligned. */
const comesInFours = (view: View | undefined): boolean =>
  view === undefined || isAligned(view, view.dtype === "f32" ? 16 : 8);

const bitsOf = new Uint32Array(1);
const floatOf = new Float32Array(bitsOf.buffer);

/** A float's bits as a whole number. */
function floatBits(value: number): number {
  floatOf[0] = value;
  return bitsOf[0];
}

export const optimizerKernels = (context: KernelContext): Pick<Kernels, "globalNorm" | "adamw"> => ({
  globalNorm: (tensors, out) => {
    const words: number[] = [];
    let chunks = 0;
    for (const tensor of tensors) {
      const count = sizeOf(tensor.shape);
      words.push(chunks, addressOf(tensor), count, typeOf(tensor) + (comesInFours(tensor) ? 16 : 0));
      chunks += Math.ceil(count / CHUNK);
    }
    if (chunks === 0) return context.clear(out);
    const parts = context.temporary([chunks], "f32");
    context.launch({
      kernel: "norm_parts",
      grid: chunks,
      block: 256,
      args: [pointer(context.table(words)), i32(tensors.length), i32(0), pointer(parts)],
    });
    context.launch({
      kernel: "norm_whole",
      grid: 1,
      block: 1024,
      args: [pointer(parts), i32(chunks), i32(0), pointer(out)],
    });
  },
  adamw: ({ params, grads, m, v, copies, lr, step, scale, norm }, { beta1, beta2, eps, weightDecay }) => {
    const words: number[] = [];
    let chunks = 0;
    for (const [i, param] of params.entries()) {
      const copy = copies?.[i];
      const views = [param, grads[i], m[i], v[i], copy];
      const fours = views.every(comesInFours);
      const types = typeOf(param) + 16 * typeOf(grads[i]) + 256 * (copy ? typeOf(copy) : 0) + (fours ? 4096 : 0);
      const count = sizeOf(param.shape);
      words.push(chunks, ...views.map((view) => (view ? addressOf(view) : 0)), count, types, floatBits(weightDecay[i]));
      chunks += Math.ceil(count / CHUNK);
    }
    const options = [f32(beta1), f32(beta2), f32(eps), i32(params.length), ...[lr, step, scale, norm].map(pointer)];
    if (chunks > 0) {
      context.launch({ kernel: "adamw", grid: chunks, block: 256, args: [pointer(context.table(words)), ...options] });
    }
    context.launch({ kernel: "adamw_step", grid: 1, block: 1, args: options });
  },
});
