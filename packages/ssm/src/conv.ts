// The depthwise causal convolution of the mixers, with SiLU.
// Knows its parameters and the routine. Knows no mixer.

import { type Build, init, Module, type Parameter, type PublishedTensor, whole } from "@diffmamba/nn";
import { causalConv1d, type SequenceOptions, type Tensor } from "@diffmamba/tensor";

export interface CausalConv1dOptions {
  readonly channels: number;
  /** Taps. */
  readonly width: number;
  readonly bias: boolean;
}

export class CausalConv1d extends Module {
  /** (channels, width); published as (channels, 1, width). */
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;

  constructor({ channels, width, bias }: CausalConv1dOptions, build: Build) {
    super();
    const initial = init.fanIn(width);
    this.weight = this.register("weight", build.parameter("weight", [channels, width], initial));
    this.bias = bias ? this.register("bias", build.parameter("bias", [channels], initial)) : undefined;
  }

  /** x (B, L, C), state (B, C, W) -> silu(conv(x)) (B, L, C) and the state after it. */
  run(x: Tensor, initialState: Tensor | undefined, sequence: SequenceOptions): { y: Tensor; finalState: Tensor } {
    return causalConv1d(x, this.weight.compute, { bias: this.bias?.compute, initialState, ...sequence });
  }

  protected override ownPublished(): PublishedTensor[] {
    return [conv1dWeight("weight", this.weight), ...(this.bias ? [whole("bias", this.bias)] : [])];
  }
}

/** A convolution's weight as PyTorch shapes it. */
export function conv1dWeight(name: string, weight: Parameter): PublishedTensor {
  return whole(name, weight, [weight.shape[0], 1, weight.shape[1]]);
}
