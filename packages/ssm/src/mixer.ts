// What every sequence mixer is: a layer over (B, L, D) with a recurrent state of constant size, that can go on from where
// it stopped. A step is a sequence of one token; a prefill is a sequence that hands over its state.
// Knows tensors and modules. Knows no single mixer.

import { Module } from "@diffmamba/nn";
import { type DType, keep, noGrad, type SequenceOptions, scope, type Tensor } from "@diffmamba/tensor";

/**
 * What the states of scans are kept in between tokens. "f32" (f64 in a model of f64) is exact. 16 bits are half of the memory, and of the
 * bytes that a token of many rows is bound by; each token, or with {@link Mixer.defer} every so many, then rounds the state once, to 8 bits
 * of it in bf16 and 11 in f16, while all arithmetic stays in f32. state-spaces/mamba keeps states in the model's type: in bf16 where that
 * is bf16.
 */
export type StateDType = "f32" | "bf16" | "f16";

/**
 * The state of a mixer after a token, f32 but for what {@link StateDType} says of scans: a convolution's last W inputs (B, C, W), then the
 * scan's state, and so on for a mixer of several branches. The first axis of each is the batch.
 */
export type MixerState = readonly Tensor[];

export interface MixerOptions extends SequenceOptions {
  /** State before the first token; the mixer's own initial state (mostly zeros) by default. Gradients flow into it. */
  readonly initialState?: MixerState;
}

export interface MixerResult {
  /** (B, L, D) */
  readonly y: Tensor;
  /** State after each row's last token; gradients flow through it. */
  readonly state: MixerState;
}

export abstract class Mixer extends Module {
  /** x (B, L, D) -> y (B, L, D) and the state after it. */
  abstract run(x: Tensor, options?: MixerOptions): MixerResult;

  /** The state before any token, for `batch` rows, the scans' kept in `dtype`. The caller owns it. */
  abstract initialState(batch: number, dtype?: StateDType): MixerState;

  /**
   * The state, with places beside it for tokens that its scans have not taken in, where the backend would keep some
   * (`Backend.keepsTokens`); else the state itself. For decoding, outside a tape: a {@link run} of one token that is given it leaves the
   * scans' states as they were some tokens ago. `count` () i32, 0 at first, is the caller's, who adds 1 after each token. The further
   * tensors are the caller's to dispose of, after {@link settle}.
   */
  defer(state: MixerState, _count: Tensor): MixerState {
    return state;
  }

  /** The scans' states in what {@link defer} gave are, in place, those after all tokens. The count is then to be set to 0. */
  settle(_state: MixerState): void {}

  /** x (B, L, D) -> (B, L, D) */
  forward(x: Tensor, options: MixerOptions = {}): Tensor {
    return scope(() => this.run(x, options).y);
  }

  /**
   * x (B, L, D) -> (B, L, D), going on from `state`, which is replaced in place by the state after the last token.
   * L = 1 is a step, more is a prefill. Outside a tape.
   */
  advance(x: Tensor, state: MixerState, options: SequenceOptions = {}): Tensor {
    return noGrad(() =>
      scope(() => {
        const result = this.run(x, { ...options, ...stepOptions(x), initialState: state });
        replaceState(state, result.state);
        return result.y;
      }),
    );
  }
}

/** What a step of decoding has beside the rest: a single token's state is replaced where it is. Outside a tape. */
export function stepOptions(tokens: Tensor): Pick<SequenceOptions, "replacesState"> {
  return { replacesState: tokens.dim(1) === 1 };
}

/** The state becomes what a mixer left, whose own memory is then of no more use; nothing is to do where it was replaced in place. */
export function replaceState(state: MixerState, after: MixerState): void {
  for (const [i, tensor] of state.entries()) if (tensor.storage !== after[i].storage) tensor.take(after[i]);
}

/** A scan's option, where it is set. */
export function chunks(chunkSize: number | undefined): { readonly chunkSize?: number } {
  return chunkSize === undefined ? {} : { chunkSize };
}

/** Zero states of a convolution and of the scans after it, of these shapes, owned by the caller. */
export function zeroState(
  like: Tensor,
  [convolution, ...scans]: readonly (readonly number[])[],
  dtype: StateDType = "f32",
): MixerState {
  const exact = like.dtype === "f64" ? "f64" : "f32";
  const zeros = (shape: readonly number[], type: DType) => keep(like.device.zeros(shape, type));
  return [zeros(convolution, exact), ...scans.map((shape) => zeros(shape, dtype === "f32" ? exact : dtype))];
}
