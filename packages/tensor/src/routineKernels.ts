// The kernels that a backend may have beside the primitives: what each routine is given, its options, and what it writes.
// Knows views. Knows no Tensor, no tape and no backend by name.

import type { View } from "./view.js";

/**
 * Recurrent state, packing and padding that every sequence routine takes. The state is f32; of a single
 * token also bf16 or f16, where the backend says `narrowStates`. Where the sequences have a single token, the output
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

/** Sizes of a Mamba-2 scan's states, (B, H, P, N), and the groups of its tokens. */
export interface SsdShape {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly dState: number;
}

/** A state of some tokens ago, and the tokens that it has not taken in; all contiguous. */
export interface SsdKept {
  /** (B, H, P, N), also bf16 or f16; changed in place. */
  readonly initialState: View;
  /** (B, K, H, P) and (B, K, G, N), of the type of the tokens. */
  readonly keptX: View;
  readonly keptB: View;
  /** (B, K, H), dt after bias, softplus and limits. */
  readonly keptSteps: View;
  /** () i32; the first `count` modulo K of the K places are filled, the others hold anything. */
  readonly count: View;
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
  /**
   * A single token (L = 1, no packing, no padding) after c = `count` modulo K kept ones. With a_s the sum of step A over the tokens
   * after s, a over all of them, and the token itself as number c: y = (e^a S C + sum_s e^(a_s) (C . B_s) step_s x_s + D x) silu(z).
   * Its x, B and step go to place c; where c + 1 = K, S becomes e^a S + sum_s e^(a_s) step_s x_s B_s^T. The count stays.
   */
  ssdDeferred(
    inputs: Omit<SsdInputs, keyof SequenceInputs> & SsdKept,
    outputs: { readonly y: View },
    options: Omit<SsdOptions, "chunkSize">,
  ): void;
  /** S becomes e^a S + sum_s e^(a_s) step_s x_s B_s^T over the tokens that are kept. */
  ssdSettle(inputs: SsdKept & { readonly A: View }): void;
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
