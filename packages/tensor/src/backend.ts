// The interface between the tensor core and a backend: memory, reading back, and kernels over views of buffers.
// A kernel call only enqueues; creating a backend, reading and synchronising are all that waits.
// Knows shapes and element types. Knows no Tensor, no tape, no scope, and no backend by name.

import type { DType } from "./dtype.js";
import type { Layout } from "./layout.js";

/** A backend's own piece of memory; the core only carries it about. */
export interface BackendBuffer {
  readonly bytes: number;
}

/** What a kernel sees of a tensor. Strides and offset count elements. */
export interface View extends Layout {
  readonly buffer: BackendBuffer;
  readonly dtype: DType;
}

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

/**
 * Recurrent state, packing and padding that every sequence routine takes. Where the sequences have a single token, the output
 * `finalState` may be the very view that `initialState` is: the state is then replaced in place.
 */
export interface SequenceInputs {
  /** State before a row's first sequence. */
  readonly initialState?: View;
  /** (B, L) i32, non-decreasing along a row: state restarts, from zero, where it changes. */
  readonly seqIdx?: View;
  /** (B,) i32: tokens of a row from here on are padding; they leave the state alone and their output is 0. */
  readonly lengths?: View;
}

export interface Conv1dInputs extends SequenceInputs {
  /** (B, L, C), rows of C. */
  readonly x: View;
  /** (C, W), contiguous. */
  readonly weight: View;
  /** (C,) */
  readonly bias?: View;
}

export interface Conv1dOptions {
  readonly activation: "silu" | "none";
}

/** All (B, L, D) inputs are rows of D, B and C are rows of G * N; the rest is contiguous. */
export interface SelectiveScanInputs extends SequenceInputs {
  /** (B, L, D) */
  readonly u: View;
  /** (B, L, D), before bias and softplus. */
  readonly delta: View;
  /** (D, N), negative. */
  readonly A: View;
  /** (B, L, G, N); channel d belongs to group floor(d * G / D). */
  readonly B: View;
  /** (B, L, G, N) */
  readonly C: View;
  /** (D,) skip connection. */
  readonly D?: View;
  /** (B, L, D) gate: y is multiplied by silu(z). */
  readonly z?: View;
  /** (D,) */
  readonly deltaBias?: View;
}

export interface SelectiveScanOptions {
  readonly deltaSoftplus: boolean;
  /** Tokens between two stored states. */
  readonly chunkSize: number;
}

/** x and z are rows of H * P, dt rows of H, B and C rows of G * N; the rest is contiguous. */
export interface SsdInputs extends SequenceInputs {
  /** (B, L, H, P) */
  readonly x: View;
  /** (B, L, H), before bias, softplus and limits. */
  readonly dt: View;
  /** (H,), negative. */
  readonly A: View;
  /** (B, L, G, N); head h belongs to group floor(h * G / H). */
  readonly B: View;
  /** (B, L, G, N) */
  readonly C: View;
  /** (H,) or (H, P) skip connection. */
  readonly D?: View;
  /** (B, L, H, P) gate: y is multiplied by silu(z). */
  readonly z?: View;
  /** (H,) */
  readonly dtBias?: View;
}

export interface SsdOptions {
  readonly chunkSize: number;
  readonly dtSoftplus: boolean;
  /** dt is clamped to this range; (0, Infinity) clamps nothing that softplus gives. */
  readonly dtLimit: readonly [number, number];
}

export interface RmsNormOptions {
  readonly eps: number;
  /** Channels that share one mean square; divides D. */
  readonly groupSize: number;
  /** true: norm(x) * silu(z); false: norm(x * silu(z)). Without z it does not matter. */
  readonly normBeforeGate: boolean;
}

/** What a token is drawn by: see {@link RoutineKernels.sample}. */
export interface SampleOptions {
  /** Logits are divided by it; 0 takes the first greatest logit, and the rest is passed over. */
  readonly temperature: number;
  /** Only logits of at least the k-th greatest; 0 for all. */
  readonly topK: number;
  /** Only the greatest logits, as few as have this probability together (equal ones stay or go together); 1 for all. */
  readonly topP: number;
  /** Only tokens of at least this fraction of the greatest probability; 0 for all. */
  readonly minP: number;
}

type Gradients<Names extends string> = { readonly [K in Names as `d${K}`]?: View };

/** What adamw reads and writes. The lists run in parallel; all of `params`, `m` and `v` change in place. */
export interface AdamWInputs {
  readonly params: readonly View[];
  readonly grads: readonly View[];
  readonly m: readonly View[];
  readonly v: readonly View[];
  /** bf16 or f16, contiguous: where there is one, it becomes the parameter's new value, rounded, in the same pass. */
  readonly copies?: readonly (View | undefined)[];
  /** () f32 learning rate. */
  readonly lr: View;
  /** () i32, steps done so far; goes up by one in place, unless the step is skipped. */
  readonly step: View;
  /** () f32, what gradients are multiplied by first (clipping). */
  readonly scale: View;
  /** () f32, the gradients' norm: where it is not finite nothing changes. */
  readonly norm: View;
}

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** One per parameter. */
  readonly weightDecay: readonly number[];
}

/**
 * The routines: fused ops with a hand-written backward. A backend may lack one; using it then fails by name.
 * Forward: named inputs, named outputs, options. Backward: the forward's inputs and saved outputs plus `d<output>`;
 * it writes only the `d<input>` views that are there. States are f32 (f64 in f64). The reference defines each one.
 */
export interface RoutineKernels {
  /**
   * y_t = act(bias + sum_k w_k x_{t-W+1+k}). initialState, finalState: (B, C, W), the last W inputs,
   * oldest first, zeros where the sequence is shorter.
   */
  causalConv1d(
    inputs: Conv1dInputs,
    outputs: { readonly y: View; readonly finalState: View },
    options: Conv1dOptions,
  ): void;
  causalConv1dBackward(
    inputs: Conv1dInputs & { readonly dy?: View; readonly dfinalState?: View },
    outputs: Gradients<"x" | "weight" | "bias" | "initialState">,
    options: Conv1dOptions,
  ): void;
  /**
   * The S6 recurrence. initialState, finalState: (B, D, N). states (saved): (B, ceil(L / chunkSize), D, N), the state
   * that enters each chunk; absent where no gradient will be asked for.
   */
  selectiveScan(
    inputs: SelectiveScanInputs,
    outputs: { readonly y: View; readonly finalState: View; readonly states?: View },
    options: SelectiveScanOptions,
  ): void;
  selectiveScanBackward(
    inputs: SelectiveScanInputs & { readonly states: View; readonly dy?: View; readonly dfinalState?: View },
    outputs: Gradients<"u" | "delta" | "A" | "B" | "C" | "D" | "z" | "deltaBias" | "initialState">,
    options: SelectiveScanOptions,
  ): void;
  /**
   * The Mamba-2 scan in chunks. initialState, finalState: (B, H, P, N). states (saved):
   * (B, ceil(L / chunkSize), H, P, N), the state that enters each chunk; absent where no gradient will be asked for.
   */
  ssdScan(
    inputs: SsdInputs,
    outputs: { readonly y: View; readonly finalState: View; readonly states?: View },
    options: SsdOptions,
  ): void;
  ssdScanBackward(
    inputs: SsdInputs & { readonly states: View; readonly dy?: View; readonly dfinalState?: View },
    outputs: Gradients<"x" | "dt" | "A" | "B" | "C" | "D" | "z" | "dtBias" | "initialState">,
    options: SsdOptions,
  ): void;
  /** x, z, y: (R, D) rows; weight: (D,); rstd (saved): (R, D / groupSize). */
  rmsNorm(
    inputs: { readonly x: View; readonly weight: View; readonly z?: View },
    outputs: { readonly y: View; readonly rstd: View },
    options: RmsNormOptions,
  ): void;
  rmsNormBackward(
    inputs: { readonly x: View; readonly weight: View; readonly z?: View; readonly rstd: View; readonly dy?: View },
    outputs: Gradients<"x" | "weight" | "z">,
    options: RmsNormOptions,
  ): void;
  /**
   * A residual sum and its RMSNorm: sum = x + y, normed = weight sum rstd, rstd = (mean(sum^2) + eps)^(-1/2). Two types may meet:
   * x, sum and their gradients have that of the residual stream (f32, or the same as the other); y, weight (D,), normed and
   * their gradients the main one. x, y, sum, normed: (R, D) rows; rstd (saved): (R,) f32. The norm is that of the sum as it is
   * stored, rounded, so that it can be made again. Without y nothing is added, and there is no `sum`.
   */
  addRmsNorm(
    inputs: { readonly x: View; readonly y?: View; readonly weight: View },
    outputs: { readonly sum?: View; readonly normed: View; readonly rstd: View },
    options: { readonly eps: number },
  ): void;
  /**
   * dx = dsum + the gradient of the norm, in one pass; dy is the same value in y's type, absent where the types agree and dx
   * serves for both. `sum` is x where nothing was added.
   */
  addRmsNormBackward(
    inputs: {
      readonly sum: View;
      readonly weight: View;
      readonly rstd: View;
      readonly dsum?: View;
      readonly dnormed?: View;
    },
    outputs: Gradients<"x" | "y" | "weight">,
    options: { readonly eps: number },
  ): void;
  /** x, y: (R, D) rows; weight, bias: (D,); mean, rstd (saved): (R,). */
  layerNorm(
    inputs: { readonly x: View; readonly weight: View; readonly bias?: View },
    outputs: { readonly y: View; readonly mean: View; readonly rstd: View },
    options: { readonly eps: number },
  ): void;
  layerNormBackward(
    inputs: {
      readonly x: View;
      readonly weight: View;
      readonly bias?: View;
      readonly mean: View;
      readonly rstd: View;
      readonly dy?: View;
    },
    outputs: Gradients<"x" | "weight" | "bias">,
    options: { readonly eps: number },
  ): void;
  /**
   * logits (R, V) rows, targets (R,) i32 -> losses (R,) in nats, 0 where the target is `ignoreIndex`; logSumExp (R,)
   * saved. Any other target outside [0, V) is an error or, on a device, NaN.
   */
  softmaxCrossEntropy(
    inputs: { readonly logits: View; readonly targets: View },
    outputs: { readonly losses: View; readonly logSumExp: View },
    options: { readonly ignoreIndex: number },
  ): void;
  softmaxCrossEntropyBackward(
    inputs: { readonly logits: View; readonly targets: View; readonly logSumExp: View; readonly dlosses?: View },
    outputs: Gradients<"logits">,
    options: { readonly ignoreIndex: number },
  ): void;
  /**
   * Draws one token a row. logits (R, V) rows; keys (R, 2) i32, a row's Philox key; positions (R,) i32, the token's place in its
   * row. With z = logits / temperature, the tokens that stay are those of topK, of these those of topP, of these those of minP;
   * u of [0, 1) is (word >>> 8) 2^-24, where word is the first of the Philox block with counter (0, 0, position, 0); the token is
   * the first, by number, at which the running sum of exp(z - max) over those that stay exceeds u times their whole sum (the
   * last of them where none does). logprobs (R,) f32: ln of the token's probability by the logits as they are. Where a row has
   * NaN or +Infinity, or nothing but -Infinity, the token is -1 and its logprob NaN.
   */
  sample(
    inputs: { readonly logits: View; readonly keys: View; readonly positions: View },
    outputs: { readonly tokens: View; readonly logprobs: View },
    options: SampleOptions,
  ): void;
  /** The square root of the sum of squares of all elements of all tensors, of any floats: () f32. */
  globalNorm(tensors: readonly View[], out: View): void;
  /** One AdamW step (Loshchilov and Hutter 2019, algorithm 2), decoupled decay, bias-corrected. */
  adamw(inputs: AdamWInputs, options: AdamWOptions): void;
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
