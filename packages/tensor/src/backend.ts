// The interface between the tensor core and a backend: memory, reading back, and kernels over views of buffers.
// A kernel call only enqueues; creating a backend, reading and synchronising are all that waits.
// Knows shapes and element types. Knows no Tensor, no tape, no scope, and no backend by name.

import type { DType } from "./dtype.js";
import type { RoutineKernels, SsdShape } from "./routineKernels.js";
import type { BackendBuffer, View } from "./view.js";

/** Elementwise functions of one argument. `erf` is the error function, `softplus` log(1 + e^x). */
export type UnaryOp =
  | "neg"
  | "abs"
  | "sign"
  | "exp"
  | "log"
  | "sqrt"
  | "rsqrt"
  | "square"
  | "reciprocal"
  | "sigmoid"
  | "tanh"
  | "softplus"
  | "silu"
  | "erf";

/** Elementwise functions of two arguments of one type. */
export type BinaryOp = "add" | "sub" | "mul" | "div" | "max" | "min" | "pow";

/** Comparisons; the result is u8, 0 or 1. */
export type CompareOp = "eq" | "lt" | "le";

export type ReduceOp = "sum" | "max";

/** Counter-based random numbers (Philox 4x32-10): key = `key`, counter = (`step`, element). */
export interface RandomOptions {
  /** Two 32-bit words, from the seed and the stream's name. */
  readonly key: readonly [number, number];
  /**
   * `bits` writes i32 words. `keep` writes u8: 1 where the u32 word is at least `threshold`, else 0; the comparison is
   * between integers, so that a mask is the same on every backend.
   */
  readonly kind: "bits" | "keep";
  readonly threshold?: number;
}

/**
 * The primitives that every backend has. Every `out` is allocated by the core and wholly overwritten (but for
 * `accumulate`); it never shares memory with an input, unless it is that very view (in place). Inputs of elementwise
 * kernels come broadcast to the shape of `out` (stride 0), with any strides, up to rank 6. Sums run in a fixed order.
 */
export interface PrimitiveKernels {
  unary(op: UnaryOp, x: View, out: View): void;
  binary(op: BinaryOp, a: View, b: View, out: View): void;
  compare(op: CompareOp, a: View, b: View, out: View): void;
  /** out = cond ? a : b; cond is u8. */
  where(cond: View, a: View, b: View, out: View): void;
  /** Over the axes where `out` has size 1 and `x` has not; same rank. */
  reduce(op: ReduceOp, x: View, out: View): void;
  /** Index (i32) of the first greatest element of the last axis: (..., N) -> (...). */
  argmax(x: View, out: View): void;
  /** Running sum along `axis`, from its end with `reverse`. */
  cumsum(x: View, out: View, options: { readonly axis: number; readonly reverse: boolean }): void;
  /**
   * (batch, M, K) x (batch, K, N) -> (batch, M, N). Each matrix of `a` and `b` has one contiguous axis (either one, so
   * transposes are views) and any pitch in the other; `batch` may have stride 0. `out` has a contiguous last axis.
   * With `accumulate`, adds to `out`. Where `a` and `b` are bf16 or f16, `out` has their type or is f32. `bias` (N,), contiguous and of
   * the type of `out`, is added to every row; it is there only where {@link Backend.addsBias} says so.
   */
  matmul(a: View, b: View, out: View, options: { readonly accumulate: boolean; readonly bias?: View }): void;
  /** Rows of a table: table (V, D), index (R,) i32 -> (R, D). An index out of range is an error or, on a device, NaN. */
  gather(table: View, index: View, out: View): void;
  /** out (V, D) = 0, then out[index[r]] += src[r] for r in order; index (R,) i32, src (R, D). */
  scatterAdd(index: View, src: View, out: View): void;
  /** Copies, converting between types. */
  copy(x: View, out: View): void;
  fill(out: View, value: number): void;
  /** out[i] = i, for a contiguous vector. */
  iota(out: View): void;
  /** `step`: () i32, the high part of the counter. */
  random(out: View, step: View, options: RandomOptions): void;
}

export type Kernels = PrimitiveKernels & Partial<RoutineKernels>;

/** Kernel calls that were recorded once, to be run again over the memory that they found then. */
export interface Recording {
  /** Enqueues all of them, in their order. */
  replay(): void;
  /** Gives back the memory that it held still. Replaying it from here on is an error. */
  dispose(): void;
}

/** A place where tensors live and kernels run. Only {@link read} and {@link synchronize} wait. */
export interface Backend {
  /** "reference", "cpu", "webgpu", "cuda" … */
  readonly name: string;
  /** The hardware in words. */
  readonly device: string;
  /** Element types it can store and compute with. */
  readonly dtypes: ReadonlySet<DType>;
  /** False where buffers hold nothing, because only shapes and sizes are of interest. */
  readonly holdsData: boolean;
  readonly kernels: Kernels;
  /** Memory with arbitrary content. @throws BackendError when there is none left */
  allocate(bytes: number): BackendBuffer;
  /** Takes a buffer back; kernels enqueued before may still use it. */
  free(buffer: BackendBuffer): void;
  /** Copies from the host, in the order of the kernel calls. The bytes may be reused at once. */
  write(buffer: BackendBuffer, byteOffset: number, bytes: Uint8Array): void;
  /** Waits for everything that the bytes depend on and copies them to the host. */
  read(buffer: BackendBuffer, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Waits until everything enqueued has run. */
  synchronize(): Promise<void>;
  /** Bytes held from the system, pooled ones included. */
  heldBytes(): number;
  /** Tokens a chunk that its scans are fastest with, where the caller does not care; 64 by default. */
  readonly chunkSizes?: { readonly ssdScan?: number; readonly selectiveScan?: number };
  /**
   * Whether `ssdScan` and `selectiveScan` of a single token take the state in bf16 or f16, and leave it so, rounded to nearest after y was
   * made of it in f32. Elsewhere it is widened before and rounded after.
   */
  readonly narrowStates?: boolean;
  /**
   * How many tokens, of `dtype`, `ssdDeferred` best keeps beside states of these sizes, up to what its kernel takes; 0 where each token is
   * better taken in at once. Absent where it never pays. Asked by who decodes; the kernel itself may be there all the same.
   */
  readonly keepsTokens?: (shape: SsdShape, types: { readonly dtype: DType; readonly stateDType: DType }) => number;
  /**
   * Whether steps of decoding (sequences of one token, with states) of many rows in bf16, once recorded, may round between two products in
   * another place than their calls do. All else that is recorded has the bits of its calls.
   */
  readonly roundsRecordedTokens?: boolean;
  /** Whether `matmul` takes a bias. Elsewhere it is added by a pass of its own. */
  readonly addsBias?: boolean;
  /** True where time is dearer than memory: outputs that backward could have made again are held for it instead. */
  readonly holdsOutputs?: boolean;
  /**
   * True where a replay costs less than the calls that were recorded: who repeats a step then records it unasked. "decoding" where that is
   * worth it only for steps that hold little memory, as a recording keeps its own.
   */
  readonly prefersRecording?: boolean | "decoding";
  /** True while kernel calls are recorded to be run again: they must find their buffers where they are now. */
  readonly recording?: boolean;
  /**
   * Calls `fn` and records its kernel calls instead of running them. What is allocated in it stays where it is for as long as the
   * recording lives: memory freed in it is used again in it, never outside. Memory from before, such as inputs, must outlive the
   * recording. Whatever changes from replay to replay is the content of a buffer. Host writes and reads in it are errors.
   * Absent where a backend cannot record. @throws BackendError where `fn` reads, writes or records
   */
  record?(fn: () => void): Recording;
  /** Gives everything back. Every later call is an error. */
  dispose(): Promise<void>;
}
