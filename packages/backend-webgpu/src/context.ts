// Layer: WebGPU kernels. What a kernel is given: a way to run a shader over views, memory for what lies between two dispatches, and
// what the device can do.
// Knows views. Knows no WebGPU object and no op.

import type { DType, View } from "@diffmamba/tensor";
import type { ShaderName } from "./shaders.generated.js";
import type { Constants } from "./template.js";

/** A float among uniforms; plain numbers there are u32. */
export class F32 {
  constructor(readonly value: number) {}
}

export function f32(value: number): F32 {
  return new F32(value);
}

/** What a shader sees of a view: where it begins and of what type it is. */
export type Operand = Pick<View, "buffer" | "dtype" | "offset" | "shape" | "strides">;

/**
 * How a view is bound. Plainly, as an array of f32 or i32, or of u32 that hold the packed elements of bf16, f16 and u8; with
 * `vec: 4` as an array of vectors of four of these (16 bytes), at which its offset must be aligned; `atomic`, of atomic u32; or `f16`,
 * where the device has that type.
 */
export type BufferUse =
  | Operand
  | { readonly view: Operand; readonly vec?: 4; readonly atomic?: true; readonly f16?: true };

/** A shader that a kernel wrote. The name stands for the text: equal names mean equal texts. */
export interface ShaderText {
  readonly name: string;
  readonly text: string;
}

/**
 * One run of a shader. The shader reads and writes `$<name>[...]` of `buffers`, where `u.<name>_at` is its view's offset: in elements
 * or, with `vec`, in vectors. Names of one buffer of which one is written stand for one binding. A buffer that is there sets the flag
 * `HAS_<name>`.
 */
export interface Dispatch {
  readonly shader: ShaderName | ShaderText;
  /** Flags (of `#if`) and numbers (`const`): each combination is compiled by itself. */
  readonly constants?: Constants;
  readonly buffers: Readonly<Record<string, BufferUse | undefined>>;
  /** The names of the buffers that are written. */
  readonly writes: readonly string[];
  /** u32, taken modulo 2^32, or {@link f32}. The same names for the same shader, constants and buffers. */
  readonly uniforms?: Readonly<Record<string, number | F32>>;
  /** Workgroups; the shader may be given some more, and counts them by lib/grid.wgsl. */
  readonly groups: number;
  /** Stands for the shader, its constants, and the names and types of what it binds: the same object means the same. */
  readonly plan?: object;
}

export interface KernelLimits {
  /** The device computes on the processor: it compiles for long and gains nothing by large tiles. */
  readonly fallback: boolean;
  /** Whether shaders may use subgroups, and the smallest one's size. */
  readonly subgroups: boolean;
  readonly subgroupMin: number;
  readonly subgroupMax: number;
  /** Whether shaders may use f16 and matrices of 32 threads: 16 x 16 by 16 x 8 or 16 x 16 of f16, summed in f32. */
  readonly subgroupMatrices: boolean;
  /** Whether products of f32 use these matrices, each element as the sum of two f16. */
  readonly splitProducts: boolean;
  /** Buffers that a dispatch binds, at least 8. */
  readonly buffers: number;
  /** Threads of a workgroup, at least 256. */
  readonly workgroupSize: number;
  /** Bytes of a workgroup's memory. */
  readonly workgroupBytes: number;
  /** Bytes of a buffer that a dispatch sees. */
  readonly bindingBytes: number;
}

/** A row that an RMSNorm makes: normed = weight norm(v), of v = x, x + y, which `sum` is then, or x with its gate. */
export interface NormedRow {
  readonly x: View;
  readonly y?: View | undefined;
  readonly z?: View | undefined;
  readonly weight: View;
  readonly sum?: View | undefined;
  readonly normed: View;
  readonly rstd: View;
  readonly eps: number;
  /** The gate multiplies what is normed instead of what is to be normed. */
  readonly normBeforeGate: boolean;
}

/** A dispatch that is put off, and the row that it makes. */
export interface Deferred {
  readonly row: NormedRow;
  readonly dispatch: Dispatch;
}

export interface KernelContext {
  readonly limits: KernelLimits;
  /** Enqueues a shader. @throws BackendError for a view that the device cannot bind */
  run(dispatch: Dispatch): void;
  /**
   * Enqueues a dispatch that makes one row, but only when something else is enqueued: a kernel that reads the row may make it by the way,
   * as a dispatch of little work takes about as long as one of some more. It uses no temporaries.
   */
  defer(deferred: Deferred): void;
  /** What was put off, if it makes this row: the caller makes it instead, and writes all that it writes. */
  takeDeferred(row: View): Deferred | undefined;
  /** A contiguous view (f32 by default) of memory that lives until the kernel call is over. */
  temporary(shape: readonly number[], dtype?: DType): View;
}
