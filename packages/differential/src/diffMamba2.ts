// N-Diff-Mamba-2 (arXiv 2507.06204, eq. 21) in its fused form. Two Mamba-2 mixers of one input whose outputs are
// subtracted are one Mamba-2 mixer with twice the groups, a gated norm per group, and the output projection
// [W1 | -lambda W2]: one input projection, one convolution, one scan, one output projection.
// Knows the Mamba-2 mixer and lambda. Knows no model.

import { Build, Derived, type Parameter, type PublishedTensor, RMSNorm } from "@diffmamba/nn";
import {
  Mamba2,
  type Mamba2Options,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  type StateDType,
} from "@diffmamba/ssm";
import { concat, type DType, linear, type Tensor } from "@diffmamba/tensor";
import { finish } from "./combine.js";
import { initialLambda, type LambdaMode, type LambdaOptions, lambdaParameter, lambdaValue } from "./lambda.js";

/** Options of one branch, and what joins the two. */
export interface DiffMamba2Options extends Omit<Mamba2Options, "dSsm">, LambdaOptions {
  /** Of each branch: dInner = expand dModel. 1 by default, half of a vanilla mixer's. */
  readonly expand?: number;
  /** The norm after the subtraction; true by default. */
  readonly subln?: boolean;
  /** What checkpoints call the two branches; ["mixer_1", "mixer_2"] by default. */
  readonly branchNames?: readonly [string, string];
}

export class DiffMamba2 extends Mixer {
  /** Both branches: expand and groups doubled, everything else as in one. */
  readonly inner: Mamba2;
  readonly lambdaMode: LambdaMode;
  readonly lambdaInit: number;
  /** lambda's parameter; none in mode "none". */
  readonly lambdaQ1: Parameter | undefined;
  readonly subln: RMSNorm | undefined;
  readonly branchNames: readonly [string, string];
  readonly #folded = this.hold(new Derived());

  /** @throws RangeError for biases of the projections, and for sizes that do not fit together */
  constructor(
    readonly options: DiffMamba2Options,
    build = new Build(),
  ) {
    super();
    const { expand = 1, nGroups = 1, subln = true, dModel, normEps } = options;
    if (options.bias) {
      throw new RangeError("DiffMamba2: bias: true; the fused form has no biases in its projections. Leave it out.");
    }
    this.branchNames = options.branchNames ?? ["mixer_1", "mixer_2"];
    const { normGroups = nGroups } = options;
    const both = { expand: 2 * expand, nGroups: 2 * nGroups, normGroups: 2 * normGroups };
    this.inner = this.register(
      "inner",
      new Mamba2({ ...options, ...both, foldsOutput: options.lambda !== "none" }, build),
    );
    this.lambdaMode = options.lambda ?? "vecsum";
    this.lambdaInit = initialLambda(options);
    const q1 = lambdaParameter(options, dModel, build);
    this.lambdaQ1 = q1 && this.register("lambda_q1", q1);
    this.subln = subln
      ? this.register("subln", new RMSNorm({ dim: dModel, eps: normEps ?? 1e-5, folded: true }, build.at("subln")))
      : undefined;
  }

  /** sigmoid(s) + lambda_init: () or (1,), or (dModel,) in mode "channel". @throws Error in mode "none" */
  lambda(): Tensor {
    if (this.lambdaQ1 === undefined) throw new Error('DiffMamba2: there is no lambda in mode "none".');
    return lambdaValue(this.lambdaMode, this.lambdaQ1, this.lambdaInit);
  }

  override run(x: Tensor, options: MixerOptions = {}): MixerResult {
    const { y: normed, state } = this.inner.mix(x, options);
    const { lambdaQ1, inner } = this;
    const fold = () => this.outputWeight(normed.dtype);
    // Without a lambda the weight is the parameter's own.
    const weight = lambdaQ1 ? this.#folded.get(this, normed, [inner.outProj.weight, lambdaQ1], fold) : fold();
    const p = linear(normed, weight);
    return { y: finish(p, this.subln, this.lambdaInit), state };
  }

  /**
   * [W1 | -lambda W2]: (dModel, 2 dInner), formed in the weight's own type, f32 under mixed precision, and then cast to `dtype`. Its
   * gradient gives that of lambda, -<dp n2^T, W2>, without another product.
   */
  outputWeight(dtype: DType = this.inner.outProj.weight.dtype): Tensor {
    const { weight } = this.inner.outProj;
    if (this.lambdaQ1 === undefined) return weight.compute;
    const half = weight.dim(1) / 2;
    const [w1, w2] = weight.split([half, half]);
    return concat([w1, w2.mul(this.lambda().neg().cast(w2.dtype).reshape(-1, 1))]).cast(dtype);
  }

  override initialState(batch: number, dtype?: StateDType): MixerState {
    return this.inner.initialState(batch, dtype);
  }

  override defer(state: MixerState, count: Tensor): MixerState {
    return this.inner.defer(state, count);
  }

  override settle(state: MixerState): void {
    this.inner.settle(state);
  }

  /** The two branches' tensors, as two mixers would have them: rows, channels and heads of each. */
  protected override publishedChildren(): [string, Mixer | RMSNorm][] {
    return this.subln ? [["subln", this.subln]] : [];
  }

  protected override ownPublished(): PublishedTensor[] {
    const branches = this.branchNames.flatMap((branch, i) => branchTensors(this.inner, branch, i));
    return [...branches, ...super.ownPublished()];
  }
}

/** Half `i` of each of the runs of `sizes` that lie one after another. */
function halves(sizes: readonly number[], i: number): [number, number][] {
  let start = 0;
  return sizes.map((size) => {
    const from = start + (i * size) / 2;
    start += size;
    return [from, from + size / 2];
  });
}

/** The published tensors of branch `i` (0 or 1), found in the fused mixer. */
function branchTensors(inner: Mamba2, branch: string, i: number): PublishedTensor[] {
  const { dSsm, nGroups, dState, nHeads } = inner;
  const shared = nGroups * dState;
  const rows = halves([dSsm, dSsm, shared, shared, nHeads], i);
  const channels = halves([dSsm, shared, shared], i);
  return inner.published(branch).map((entry) => {
    const name = entry.name.slice(branch.length + 1);
    const { shape } = entry.parameter;
    if (name === "in_proj.weight") return { ...entry, pieces: rows };
    if (name === "out_proj.weight") return { ...entry, axis: 1, pieces: halves([shape[1]], i) };
    if (!name.startsWith("conv1d.")) return { ...entry, pieces: halves([shape[0]], i) };
    const size = channels.reduce((sum, [start, end]) => sum + end - start, 0);
    return { ...entry, pieces: channels, ...(entry.shape && { shape: [size, ...entry.shape.slice(1)] }) };
  });
}
