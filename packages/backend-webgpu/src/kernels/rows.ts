// Layer: WebGPU kernels. What the routines over rows share: pitches, whether rows may be read in fours, how many threads take a
// row together, and the sum of what workgroups have summed in part.
// Knows layouts and limits. Knows no formula.

import { BackendError, formatShape, rowPitch, sizeOf, type View } from "@diffmamba/tensor";
import type { BufferUse, KernelContext } from "../context.js";

/** Threads of a workgroup of these shaders. */
export const THREADS = 256;

/** Workgroups that keep a large device busy to the end. */
export const ENOUGH_GROUPS = 1056;

type Views = Readonly<Record<string, View | undefined>>;

/** How shaders see rows: in fours or one by one, with pitches in that unit. */
export interface RowUses {
  readonly fours: boolean;
  /** `count` of `elements`, in units of four or one. */
  readonly unit: 1 | 4;
  readonly buffers: Readonly<Record<string, BufferUse | undefined>>;
  /** `<name>_pitch` of each. */
  readonly pitches: Readonly<Record<string, number>>;
}

/** Elements from one row of the last axis to the next. @throws BackendError where no one pitch leads from row to row */
export function pitchOf(name: string, view: View): number {
  const pitch = rowPitch(view, 1);
  if (pitch !== undefined) return pitch;
  throw new BackendError(
    `webgpu: ${name} ${formatShape(view.shape)} has strides ${formatShape(view.strides)}; its last axis must be contiguous ` +
      "and the others step by one pitch. Make it contiguous first.",
  );
}

/**
 * The views of `rows`, of one width, and of `whole`, contiguous ones that are read beside them, in fours where every offset,
 * pitch and width allows it. Names as in the shader; absent views are left out.
 */
export function rowUses(op: string, width: number, rows: Views, whole: Views = {}): RowUses {
  const present = Object.entries({ ...rows, ...whole }).flatMap(([name, view]) => (view ? [{ name, view }] : []));
  const pitches = Object.entries(rows).flatMap(([name, view]) =>
    view ? [{ name, pitch: pitchOf(`${op}: ${name}`, view) }] : [],
  );
  const numbers = [width, ...present.map(({ view }) => view.offset), ...pitches.map(({ pitch }) => pitch)];
  const fours = numbers.every((n) => n % 4 === 0);
  const unit = fours ? 4 : 1;
  return {
    fours,
    unit,
    buffers: Object.fromEntries(present.map(({ name, view }) => [name, fours ? { view, vec: 4 } : view])),
    pitches: Object.fromEntries(pitches.map(({ name, pitch }) => [`${name}_pitch`, pitch / unit])),
  };
}

/** Threads side by side that take a row together, and the items of it that each holds. */
export interface Team {
  readonly team: number;
  readonly held: number;
}

/** The smallest team that holds `items` with at most `most` to a thread; but threads enough to read memory in long pieces. */
export function teamFor(items: number, most: number): Team {
  let team = 1;
  while (team < THREADS && (team * most < items || (team < 32 && team < items))) team *= 2;
  return { team, held: Math.max(1, Math.min(most, Math.ceil(items / team))) };
}

/** Rows to a workgroup, at least, where each leaves a row of sums in part: they stay small beside what they are sums of. */
const ROWS_PER_BLOCK = 16;

/** Workgroups to share so many rows of so many parts, each of which takes one part of its rows. */
export function blocksFor(rows: number, parts: number): number {
  return Math.ceil(Math.min(rows / ROWS_PER_BLOCK, ENOUGH_GROUPS / parts));
}

/** The constants of lib/workgroup-sum.wgsl that follow from the device. */
export function joiningConstants({ limits }: KernelContext): Readonly<Record<string, number | boolean>> {
  return limits.subgroups && limits.subgroupMin >= 4 ? { subgroups: true, run: limits.subgroupMin } : {};
}

/**
 * The flag by which `#repeat` writes out copies: a GPU keeps arrays in registers if every index is a constant. For a driver on the
 * processor shaders would only take longer to compile.
 */
export function unrolling({ limits }: KernelContext): { readonly unrolled: boolean } {
  return { unrolled: !limits.fallback };
}

/** out = the sum of the rows of `partial`, (rows, pitch) of which it takes the columns from `from` on. */
export function sumPartials(context: KernelContext, partial: View, from: number, out: View): void {
  const [rows, pitch] = partial.shape;
  const columns = sizeOf(out.shape);
  if (columns === 0) return;
  context.run({
    shader: "sum-partials",
    buffers: { x: { ...partial, offset: partial.offset + from }, out },
    writes: ["out"],
    uniforms: { rows, pitch, columns },
    groups: Math.ceil(columns / 8),
  });
}
