// N-Diff-Mamba in its plain form: two whole mixers of the same input, subtracted, normed, scaled (arXiv 2507.06204,
// eq. 21). For Mamba-2 this is the oracle of the fused form; for Mamba-1 it is the form.
// Knows mixers and lambda. Knows no model.

import { Build, init, type Parameter, RMSNorm } from "@diffmamba/nn";
import {
  Mamba,
  Mamba2,
  type MambaOptions,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  type StateDType,
} from "@diffmamba/ssm";
import type { Tensor } from "@diffmamba/tensor";
import { difference, finish } from "./combine.js";
import type { DiffMamba2Options } from "./diffMamba2.js";
import { initialLambda, type LambdaMode, type LambdaOptions, lambdaParameter, lambdaValue } from "./lambda.js";

/** p = m1(x) - lambda m2(x), for any two mixers; the state is the first's, then the second's. */
abstract class TwoBranch<Branch extends Mixer> extends Mixer {
  abstract readonly m1: Branch;
  abstract readonly m2: Branch;
  abstract readonly subln: RMSNorm | undefined;
  abstract readonly lambdaInit: number;

  /** undefined: the branches are added. */
  protected abstract factor(): Tensor | undefined;

  override run(x: Tensor, { initialState, ...sequence }: MixerOptions = {}): MixerResult {
    const half = initialState && initialState.length / 2;
    const first = this.m1.run(x, { ...sequence, initialState: initialState?.slice(0, half) });
    const second = this.m2.run(x, { ...sequence, initialState: initialState?.slice(half) });
    const p = difference(first.y, second.y, this.factor());
    return { y: finish(p, this.subln, this.lambdaInit), state: [...first.state, ...second.state] };
  }

  override initialState(batch: number, dtype?: StateDType): MixerState {
    return [...this.m1.initialState(batch, dtype), ...this.m2.initialState(batch, dtype)];
  }
}

/** N-Diff-Mamba-2 as two mixers: the oracle of {@link DiffMamba2}, with the same published tensors. */
export class DiffMamba2TwoBranch extends TwoBranch<Mamba2> {
  readonly m1: Mamba2;
  readonly m2: Mamba2;
  readonly lambdaMode: LambdaMode;
  readonly lambdaInit: number;
  readonly lambdaQ1: Parameter | undefined;
  readonly subln: RMSNorm | undefined;

  constructor(
    readonly options: DiffMamba2Options,
    build = new Build(),
  ) {
    super();
    const { expand = 1, subln = true, dModel, branchNames = ["mixer_1", "mixer_2"], normEps = 1e-5 } = options;
    const [a, b] = branchNames;
    this.m1 = this.register(a, new Mamba2({ ...options, expand }, build.at(a)));
    this.m2 = this.register(b, new Mamba2({ ...options, expand }, build.at(b)));
    this.lambdaMode = options.lambda ?? "vecsum";
    this.lambdaInit = initialLambda(options);
    const q1 = lambdaParameter(options, dModel, build);
    this.lambdaQ1 = q1 && this.register("lambda_q1", q1);
    this.subln = subln
      ? this.register("subln", new RMSNorm({ dim: dModel, eps: normEps, folded: true }, build.at("subln")))
      : undefined;
  }

  protected override factor(): Tensor | undefined {
    return this.lambdaQ1 && lambdaValue(this.lambdaMode, this.lambdaQ1, this.lambdaInit);
  }
}

export interface DiffMambaOptions extends MambaOptions, Pick<LambdaOptions, "layerIndex" | "lambdaInit"> {
  /** Of each branch; 1 by default. */
  readonly expand?: number;
  /** The norm after the subtraction; true by default. */
  readonly subln?: boolean;
  /** What checkpoints call the two branches; ["mixer_1", "mixer_2"] by default. */
  readonly branchNames?: readonly [string, string];
  /**
   * Standard deviation of lambda's vectors. The released code draws N(0, 1), which can give a lambda of e^8; the
   * Differential Transformer, whose form this is, draws with 0.1. 0.1 by default.
   */
  readonly lambdaStd?: number;
}

/** N-Diff-Mamba-1: two Mamba-1 mixers, with lambda = exp(q1 . k1) - exp(q2 . k2) + lambda_init (arXiv 2410.05258, eq. 2). */
export class DiffMamba extends TwoBranch<Mamba> {
  readonly m1: Mamba;
  readonly m2: Mamba;
  readonly lambdaInit: number;
  /** (N,) each. */
  readonly lambdaQ1: Parameter;
  readonly lambdaK1: Parameter;
  readonly lambdaQ2: Parameter;
  readonly lambdaK2: Parameter;
  readonly subln: RMSNorm | undefined;

  constructor(options: DiffMambaOptions, build = new Build()) {
    super();
    const { expand = 1, dState = 16, dModel, subln = true, lambdaStd = 0.1 } = options;
    const [a, b] = options.branchNames ?? ["mixer_1", "mixer_2"];
    this.m1 = this.register(a, new Mamba({ ...options, expand }, build.at(a)));
    this.m2 = this.register(b, new Mamba({ ...options, expand }, build.at(b)));
    const vector = (name: string) => this.register(name, build.dynamics(name, [dState], init.normal(lambdaStd)));
    this.lambdaQ1 = vector("lambda_q1");
    this.lambdaK1 = vector("lambda_k1");
    this.lambdaQ2 = vector("lambda_q2");
    this.lambdaK2 = vector("lambda_k2");
    this.lambdaInit = initialLambda(options);
    this.subln = subln
      ? this.register("subln", new RMSNorm({ dim: dModel, folded: true }, build.at("subln")))
      : undefined;
  }

  /** () */
  lambda(): Tensor {
    const first = this.lambdaQ1.mul(this.lambdaK1).sum().exp();
    const second = this.lambdaQ2.mul(this.lambdaK2).sum().exp();
    return first.sub(second).add(this.lambdaInit);
  }

  protected override factor(): Tensor {
    return this.lambda();
  }
}
