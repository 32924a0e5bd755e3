// Layer: WebGPU kernels. The norm of a list of tensors: their sums of squares in stretches, several tensors to a dispatch, then the
// sum of those and its root.
// Knows layouts and the shaders' parameters. Knows no formula.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { BufferUse, KernelContext } from "../context.js";
import { joiningConstants, THREADS } from "./rows.js";

/** The names of the tensors of one dispatch: with the output they stay below the fewest buffers that a device binds. */
const NAMES = ["a", "b", "c", "d", "e", "f"];

/** Items, of one element or four, that a workgroup sums: as in lib/squares.wgsl. */
const STRETCH = 16 * THREADS;

interface Piece {
  readonly view: View;
  readonly items: number;
  readonly stretches: number;
}

/** Tensors that may be read in fours, and the others. */
function piecesOf(tensors: readonly View[], fours: boolean): Piece[] {
  return tensors.flatMap((view) => {
    const size = sizeOf(view.shape);
    if (size === 0 || (size % 4 === 0 && view.offset % 4 === 0) !== fours) return [];
    const items = size / (fours ? 4 : 1);
    return [{ view, items, stretches: Math.ceil(items / STRETCH) }];
  });
}

function countStretches(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { stretches }) => sum + stretches, 0);
}

export const globalNormKernels = (context: KernelContext): Required<Pick<Kernels, "globalNorm">> => ({
  globalNorm(tensors, out) {
    const lists = [true, false].map((fours) => ({ fours, pieces: piecesOf(tensors, fours) }));
    const items = lists.reduce((sum, { pieces }) => sum + countStretches(pieces), 0);
    const squares = context.temporary([Math.max(1, items)]);
    let first = 0;
    for (const { fours, pieces } of lists) {
      for (let from = 0; from < pieces.length; from += NAMES.length) {
        const some = pieces.slice(from, from + NAMES.length);
        const buffers: Record<string, BufferUse> = {};
        const uniforms: Record<string, number> = {};
        let stretches = 0;
        for (const [i, piece] of some.entries()) {
          buffers[NAMES[i]] = fours ? { view: piece.view, vec: 4 } : piece.view;
          uniforms[`${NAMES[i]}_items`] = piece.items;
          uniforms[`${NAMES[i]}_from`] = stretches;
          stretches += piece.stretches;
        }
        context.run({
          shader: "global-norm-squares",
          constants: { ...joiningConstants(context), fours, team: THREADS },
          buffers: { ...buffers, out: squares },
          writes: ["out"],
          uniforms: { ...uniforms, first, stretches },
          groups: stretches,
        });
        first += stretches;
      }
    }
    context.run({
      shader: "global-norm",
      constants: { ...joiningConstants(context), team: THREADS },
      buffers: { x: squares, out },
      writes: ["out"],
      uniforms: { items },
      groups: 1,
    });
  },
});
