// What every sequence mixer is: a layer over (B, L, D) with a recurrent state of constant size, that can go on from where
// it stopped. A step is a sequence of one token; a prefill is a sequence that hands over its state.
// Knows tensors and modules. Knows no single mixer.

import { Module } from "@diffmamba/nn";
import { keep, noGrad, type SequenceOptions, scope, type Tensor } from "@diffmamba/tensor";

/**
 * The state of a mixer after a token, f32: a convolution's last W inputs (B, C, W), then the scan's state, and so on for a
 * mixer of several branches. The first axis of each is the batch.
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

  /** The state before any token, for `batch` rows. The caller owns it. */
  abstract initialState(batch: number): MixerState;

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

/** Zero states of these shapes, owned by the caller. */
export function zeroState(like: Tensor, shapes: readonly (readonly number[])[]): MixerState {
  const dtype = like.dtype === "f64" ? "f64" : "f32";
  return shapes.map((shape) => keep(like.device.zeros(shape, dtype)));
}
