// Layer: CUDA backend. What a kernel's host side may do: launch, take memory for the length of a call, clear it, write a small table.
// Knows views and the device's properties. Knows no op, and nothing of how memory is had.

import { bytesPerElement, type DType, type View } from "@diffmamba/tensor";
import type { CudaBuffer } from "./memory.js";

/** What the device is, as far as plans depend on it. */
export interface DeviceProperties {
  readonly name: string;
  /** 10 * major + minor: 80, 86, 89, 90, 100, 120 … */
  readonly computeCapability: number;
  readonly multiprocessors: number;
  /** Bytes of shared memory that one block may ask for, above the usual 48 KiB too. */
  readonly sharedPerBlock: number;
  /** Bytes of shared memory of a multiprocessor. */
  readonly sharedPerMultiprocessor: number;
  readonly l2Bytes: number;
  readonly memoryBytes: number;
}

/** A kernel's argument: an address, or a number of one of C's types. Made by {@link pointer}, {@link i32} and so on. */
export type Argument =
  | { readonly kind: "pointer"; readonly address: number }
  | { readonly kind: "i32" | "i64" | "f32"; readonly value: number }
  | { readonly kind: "ints" | "longs"; readonly values: readonly number[] };

/** The address of a view's first element; null where the view is absent. */
export function pointer(view: View | undefined): Argument {
  return { kind: "pointer", address: view === undefined ? 0 : addressOf(view) };
}

/** `int`; a flag is 0 or 1. */
export const i32 = (value: number | boolean): Argument => ({ kind: "i32", value: Number(value) });

/** `long long`: offsets and pitches that may go beyond 2^31. A whole number of at most 2^53. */
export const i64 = (value: number): Argument => ({ kind: "i64", value });

/** `float` */
export const f32 = (value: number): Argument => ({ kind: "f32", value });

/** A structure of `int`s, passed by value; shorter lists are filled up with zeros by the caller. */
export const ints = (values: readonly number[]): Argument => ({ kind: "ints", values });

/** A structure of `long long`s, passed by value. */
export const longs = (values: readonly number[]): Argument => ({ kind: "longs", values });

/** The address of a view's first element, as a number. */
export function addressOf({ buffer, dtype, offset }: View): number {
  return (buffer as CudaBuffer).address + offset * bytesPerElement[dtype];
}

/** Whether a view's first element and, with `strides`, all the steps between vectors of it are aligned to so many bytes. */
export function isAligned(view: View, bytes: number, ...strides: readonly number[]): boolean {
  const size = bytesPerElement[view.dtype];
  return addressOf(view) % bytes === 0 && strides.every((stride) => (stride * size) % bytes === 0);
}

/** One launch of a kernel. */
export interface Launch {
  /** Its name in native/kernels: an `extern "C"` function. */
  readonly kernel: string;
  /** Blocks: x, or x, y and z. A grid without blocks launches nothing. */
  readonly grid: number | readonly [number, number?, number?];
  /** Threads of a block. */
  readonly block: number | readonly [number, number?, number?];
  /** Bytes of dynamic shared memory. */
  readonly shared?: number;
  /** Whether the kernel waits itself for the one before it (native/kernels/overlap.cuh), and may start earlier. */
  readonly overlap?: boolean;
  /**
   * Whether multiprocessors are to be cut so that all they can is shared memory: a kernel finds room beside the one before it only where
   * both want the same cut.
   */
  readonly beside?: boolean;
  readonly args: readonly Argument[];
}

export interface KernelContext {
  readonly device: DeviceProperties;
  /** Enqueues a kernel; kernels run one after the other. @throws BackendError where the device refuses the launch */
  launch(launch: Launch): void;
  /** A contiguous view of arbitrary content that lives until the kernel of the interface that asked for it returns. */
  temporary(shape: readonly number[], dtype: DType): View;
  /** Enqueues zeros for a contiguous view. */
  clear(view: View): void;
  /**
   * Whether a recording is being made in which nothing so far was given memory of the view's buffer: when it is replayed, a kernel may
   * read the view before the one before it has ended (native/kernels/overlap.cuh).
   */
  isUntouched(view: View): boolean;
  /** Enqueues a table of numbers for kernels to read: 8 bytes each, addresses and whole numbers alike. A temporary. */
  table(words: readonly number[]): View;
}

/** The suffix of kernels that exist for several element types. */
export function typeName(dtype: DType): string {
  return dtype;
}
