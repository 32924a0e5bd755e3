// The "E" variant of the released code: one Mamba-2 mixer whose output is cut in two halves of dModel / 2 channels; the
// second minus lambda times the first is repeated to dModel, normed and scaled. Half the output's rank is lost.
// Knows the Mamba-2 mixer and lambda. Knows no model.

import { Build, type Parameter, RMSNorm } from "@diffmamba/nn";
import { Mamba2, type Mamba2Options, type MixerOptions, type MixerResult } from "@diffmamba/ssm";
import { concat, type Tensor } from "@diffmamba/tensor";
import { difference, finish } from "./combine.js";
import { initialLambda, type LambdaMode, type LambdaOptions, lambdaParameter, lambdaValue } from "./lambda.js";

export interface DiffMamba2EOptions extends Mamba2Options, LambdaOptions {
  /** The norm after the subtraction; true by default. */
  readonly subln?: boolean;
}

export class DiffMamba2E extends Mamba2 {
  readonly lambdaMode: LambdaMode;
  readonly lambdaInit: number;
  readonly lambdaQ1: Parameter | undefined;
  readonly subln: RMSNorm | undefined;

  constructor(options: DiffMamba2EOptions, build = new Build()) {
    super(options, build);
    const { dModel, subln = true, lambda = "vecsum" } = options;
    if (dModel % 2 !== 0) throw new RangeError(`DiffMamba2E: ${dModel} channels cannot be halved.`);
    this.lambdaMode = lambda;
    this.lambdaInit = initialLambda(options);
    const channels = lambda === "channel" ? dModel / 2 : dModel;
    const q1 = lambdaParameter(options, channels, build);
    this.lambdaQ1 = q1 && this.register("lambda_q1", q1);
    this.subln = subln
      ? this.register("subln", new RMSNorm({ dim: dModel, folded: true }, build.at("subln")))
      : undefined;
  }

  /** sigmoid(s) + lambda_init. @throws Error in mode "none" */
  lambda(): Tensor {
    if (this.lambdaQ1 === undefined) throw new Error('DiffMamba2E: there is no lambda in mode "none".');
    return lambdaValue(this.lambdaMode, this.lambdaQ1, this.lambdaInit);
  }

  override run(x: Tensor, options: MixerOptions = {}): MixerResult {
    const { y, state } = super.run(x, options);
    const half = y.dim(-1) / 2;
    const [first, second] = y.split([half, half]);
    const p = difference(second, first, this.lambdaQ1 && this.lambda());
    return { y: finish(concat([p, p]), this.subln, this.lambdaInit), state };
  }
}
