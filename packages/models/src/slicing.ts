// How the tensors of one Mamba-2 mixer are cut for the two branches of a differential one.
// Knows the parts of each tensor. Knows no model and no lambda.

import { type HostTensor, sizeOf } from "@diffmamba/tensor";

/** "reference": first and last slices, as the released code cuts. "semantic": halves of each head's channels. */
export type Slicing = "reference" | "semantic";

/** Sizes of the parent's mixer. */
export interface HeadSizes {
  readonly heads: number;
  readonly headDim: number;
  /** G N: rows of B, and of C. */
  readonly shared: number;
}

/** Which elements of one axis are kept: [start, end) after [start, end). */
export interface Ranges {
  readonly axis: number;
  readonly ranges: readonly (readonly [start: number, end: number])[];
}

/**
 * The first (branch 0) or last (branch 1) slice along every axis whose size differs; the whole where none does.
 * Of the parent's rows [z | x | B | C | dt] the second branch so gets all but the first half of z and x: its z are rows
 * of x, its x, B, C and dt are right. The first branch gets z and x alone.
 */
export function sliceEnds(whole: HostTensor, shape: readonly number[], branch: 0 | 1): HostTensor {
  let part = whole;
  for (const [axis, size] of shape.entries()) {
    const start = branch === 0 ? 0 : whole.shape[axis] - size;
    part = takeRanges(part, { axis, ranges: [[start, start + size]] });
  }
  return part;
}

/** What branch 0 or 1 keeps of a tensor by "semantic" slicing. */
export function branchRanges(name: string, shape: readonly number[], sizes: HeadSizes, branch: 0 | 1): Ranges {
  const { heads, headDim, shared } = sizes;
  const dInner = heads * headDim;
  const half = headDim / 2;
  const channels = (from: number): [number, number][] =>
    Array.from({ length: heads }, (_, h) => {
      const start = from + h * headDim + branch * half;
      return [start, start + half];
    });
  const all: Ranges = { axis: 0, ranges: [[0, shape[0]]] };
  switch (name) {
    case "in_proj.weight":
      return { axis: 0, ranges: [...channels(0), ...channels(dInner), [2 * dInner, shape[0]]] };
    case "conv1d.weight":
    case "conv1d.bias":
      return { axis: 0, ranges: [...channels(0), [dInner, dInner + 2 * shared]] };
    case "norm.weight":
      return { axis: 0, ranges: channels(0) };
    case "out_proj.weight":
      return { axis: 1, ranges: channels(0) };
    case "D":
      return shape[0] === dInner ? { axis: 0, ranges: channels(0) } : all;
    case "init_states":
      return { axis: 1, ranges: [[branch * half, (branch + 1) * half]] };
    case "dt_bias":
    case "A_log":
      return all;
    default:
      throw new Error(`convert: nothing is known of how to cut ${name}.`);
  }
}

/** The ranges of one axis, side by side. The same tensor where they are all of it. */
export function takeRanges(tensor: HostTensor, { axis, ranges }: Ranges): HostTensor {
  const { dtype, shape, data } = tensor;
  const size = ranges.reduce((sum, [start, end]) => sum + end - start, 0);
  if (ranges.length === 1 && size === shape[axis]) return tensor;
  const taken = shape.map((n, i) => (i === axis ? size : n));
  const inner = sizeOf(shape.slice(axis + 1));
  const out = data.slice(0, sizeOf(taken));
  let at = 0;
  for (let run = 0; run < sizeOf(shape.slice(0, axis)); run++) {
    for (const [start, end] of ranges) {
      const from = (run * shape[axis] + start) * inner;
      const n = (end - start) * inner;
      out.set(data.subarray(from, from + n), at);
      at += n;
    }
  }
  return { dtype, shape: taken, data: out };
}
