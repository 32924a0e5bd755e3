// Layer: WebGPU kernels. The ends that the gradients of both scans share: the gate, and sums of what workgroups have summed in part.
// Knows layouts and the shaders' parameters. Knows no formula.

import { sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { pitchOf, rowUses, THREADS } from "./rows.js";

/** dz, which holds y from before the gate, becomes the gradient of the gate; and `inner`, that of y. */
export function gateBackward(
  context: KernelContext,
  op: string,
  {
    z,
    dy,
    dz,
    inner,
  }: { readonly z: View; readonly dy: View | undefined; readonly dz: View | undefined; readonly inner?: View },
): void {
  const columns = z.shape[z.shape.length - 1];
  const rows = sizeOf(z.shape) / columns;
  const { fours, unit, buffers, pitches } = rowUses(op, columns, { z, dy, dz }, { inner });
  context.run({
    shader: "gate-backward",
    constants: { fours },
    buffers,
    writes: ["dz", "inner"],
    uniforms: { ...pitches, rows, columns: columns / unit },
    groups: Math.ceil((rows * columns) / unit / THREADS),
  });
}

/** out (B, L, G, N) = the sum of `count` parts that follow one another in `parts`. */
export function sumParts(context: KernelContext, parts: View, count: number, out: View): void {
  const rows = {
    ...out,
    shape: [...out.shape.slice(0, 2), out.shape[2] * out.shape[3]],
    strides: [...out.strides.slice(0, 2), 1],
  };
  const [batch, length, columns] = rows.shape;
  context.run({
    shader: "matmul-sum-splits",
    buffers: { parts, out },
    writes: ["out"],
    uniforms: {
      ...{ batch: 1, rows: batch * length, columns, splits: count, parts_pitch: columns },
      ...{ out_batch: 0, out_row: pitchOf("gradient", rows), out_column: 1 },
    },
    groups: Math.ceil((batch * length * columns) / THREADS),
  });
}
