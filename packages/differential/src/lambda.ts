// Lambda: how much of the second branch is subtracted. lambda = sigmoid(s) + lambda_init, with s from a learned parameter.
// Knows tensors. Knows no mixer.

import { type Build, type Initializer, init, type Parameter } from "@diffmamba/nn";
import type { Tensor } from "@diffmamba/tensor";

/**
 * How s comes from its parameter:
 * - "vecsum": the sum of a vector of dModel numbers, the released code's reparameterization (arXiv 2507.06204, eq. 17);
 * - "scalar": a single number, the best of the paper's ablation (table 2);
 * - "channel": one number, and so one lambda, a channel;
 * - "none": nothing is subtracted; the two branches are added. The control that has all of the block but lambda.
 */
export type LambdaMode = "vecsum" | "scalar" | "channel" | "none";

export const lambdaModes: readonly LambdaMode[] = ["vecsum", "scalar", "channel", "none"];

/** lambda_init of a layer, counted from 0: 0.8 - 0.6 exp(-0.3 layer). Not trained, and in no checkpoint. */
export function lambdaInit(layerIndex: number): number {
  return 0.8 - 0.6 * Math.exp(-0.3 * layerIndex);
}

export interface LambdaOptions {
  /** "vecsum" by default. */
  readonly lambda?: LambdaMode;
  /** Which layer this is, from 0: decides lambda_init. 0 by default. */
  readonly layerIndex?: number;
  /** lambda_init itself, where it does not follow from the layer. */
  readonly lambdaInit?: number;
  /** First values of lambda's parameter; N(0, 1) by default. */
  readonly lambdaParameterInit?: Initializer;
}

/** lambda_init by the options. */
export function initialLambda({ lambdaInit: given, layerIndex = 0 }: LambdaOptions): number {
  return given ?? lambdaInit(layerIndex);
}

/** The parameter `lambda_q1` of a mode, over `channels` channels; none for "none". */
export function lambdaParameter(options: LambdaOptions, channels: number, build: Build): Parameter | undefined {
  const { lambda = "vecsum", lambdaParameterInit = init.normal(1) } = options;
  if (lambda === "none") return undefined;
  return build.dynamics("lambda_q1", [lambda === "scalar" ? 1 : channels], lambdaParameterInit);
}

/** sigmoid(s) + lambda_init: (), (1,) or (channels,), by mode. */
export function lambdaValue(mode: LambdaMode, parameter: Tensor, initial: number): Tensor {
  const s = mode === "vecsum" ? parameter.sum() : parameter;
  return s.sigmoid().add(initial);
}
