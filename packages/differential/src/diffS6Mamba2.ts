// Diff-S6 on Mamba-2, the one of the paper's table 2: two input projections and two scans, with the convolution, the gated
// norm and the output projection shared; a = n1 - lambda n2, normed and scaled, before the output projection.
// Knows parameters and routines. Knows no model.

import { Build, init, Linear, type Parameter, RMSNorm } from "@diffmamba/nn";
import {
  CausalConv1d,
  chunks,
  dtBias,
  logUniform,
  type Mamba2Options,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  type StateDType,
  zeroState,
} from "@diffmamba/ssm";
import { rmsNorm, ssdScan, type Tensor } from "@diffmamba/tensor";
import { difference, finish } from "./combine.js";
import { initialLambda, type LambdaMode, type LambdaOptions, lambdaParameter, lambdaValue } from "./lambda.js";

export interface DiffS6Mamba2Options
  extends Omit<Mamba2Options, "dSsm" | "rmsNorm" | "dHasHeadDim" | "learnableInitialState">,
    LambdaOptions {
  /** The norm after the subtraction, over dInner; true by default. */
  readonly subln?: boolean;
}

/** What each of the two scans has of its own. */
interface ScanParameters {
  /** (2 dInner + 2 G N + H, dModel): rows [z | x | B | C | dt]. */
  readonly inProj: Linear;
  /** (H,) each. */
  readonly dtBias: Parameter;
  readonly aLog: Parameter;
  readonly d: Parameter;
}

export class DiffS6Mamba2 extends Mixer {
  readonly dInner: number;
  readonly dState: number;
  readonly headDim: number;
  readonly nHeads: number;
  readonly nGroups: number;
  readonly normGroups: number;
  readonly normBeforeGate: boolean;
  readonly dtLimit: readonly [number, number];
  readonly chunkSize: number | undefined;
  readonly lambdaMode: LambdaMode;
  readonly lambdaInit: number;
  readonly scans: readonly [ScanParameters, ScanParameters];
  readonly conv1d: CausalConv1d;
  readonly norm: RMSNorm;
  readonly lambdaQ1: Parameter | undefined;
  readonly subln: RMSNorm | undefined;
  readonly outProj: Linear;

  constructor(options: DiffS6Mamba2Options, build = new Build()) {
    super();
    const { dModel, dState = 64, dConv = 4, expand = 2, headDim = 64, nGroups = 1, chunkSize } = options;
    const { bias = false, convBias = true, subln = true, lambda = "scalar" } = options;
    const dInner = expand * dModel;
    if (dInner % headDim !== 0) {
      throw new RangeError(`DiffS6Mamba2: ${dInner} channels do not divide into heads of ${headDim}.`);
    }
    const nHeads = dInner / headDim;
    this.dInner = dInner;
    this.dState = dState;
    this.headDim = headDim;
    this.nHeads = nHeads;
    this.nGroups = nGroups;
    this.normGroups = options.normGroups ?? nGroups;
    this.normBeforeGate = options.normBeforeGate ?? false;
    this.dtLimit = options.dtLimit ?? [0, Number.POSITIVE_INFINITY];
    this.chunkSize = chunkSize;
    this.lambdaMode = lambda;
    this.lambdaInit = initialLambda(options);
    const channels = dInner + 2 * nGroups * dState;
    const outFeatures = dInner + channels + nHeads;
    const aInit = options.aInit ?? logUniform(1, 16);
    const scan = (i: 1 | 2): ScanParameters => {
      const name = `in_proj${i}`;
      const own = (key: string, initial: typeof aInit) => this.register(key, build.dynamics(key, [nHeads], initial));
      return {
        inProj: this.register(name, new Linear({ inFeatures: dModel, outFeatures, bias }, build.at(name))),
        dtBias: own(`dt${i}_bias`, dtBias(options)),
        aLog: own(`A${i}_log`, aInit),
        d: own(`D${i}`, init.ones),
      };
    };
    this.scans = [scan(1), scan(2)];
    this.conv1d = this.register(
      "conv1d",
      new CausalConv1d({ channels, width: dConv, bias: convBias }, build.at("conv1d")),
    );
    const eps = options.normEps ?? 1e-5;
    this.norm = this.register("norm", new RMSNorm({ dim: dInner, eps }, build.at("norm")));
    const q1 = lambdaParameter({ ...options, lambda }, dInner, build);
    this.lambdaQ1 = q1 && this.register("lambda_q1", q1);
    this.subln = subln
      ? this.register("subln", new RMSNorm({ dim: dInner, eps, folded: true }, build.at("subln")))
      : undefined;
    const outInit = init.scaled(init.fanIn(dInner), options.outScale ?? 1);
    this.outProj = this.register(
      "out_proj",
      new Linear({ inFeatures: dInner, outFeatures: dModel, bias, init: outInit }, build.at("out_proj")),
    );
  }

  /** sigmoid(s) + lambda_init. @throws Error in mode "none" */
  lambda(): Tensor {
    if (this.lambdaQ1 === undefined) throw new Error('DiffS6Mamba2: there is no lambda in mode "none".');
    return lambdaValue(this.lambdaMode, this.lambdaQ1, this.lambdaInit);
  }

  override run(x: Tensor, { initialState, ...sequence }: MixerOptions = {}): MixerResult {
    const branches = this.scans.map((scan, i) => {
      return this.#branch(scan, x, { ...sequence, initialState: initialState?.slice(2 * i, 2 * i + 2) });
    });
    const [n1, n2] = branches.map(({ y }) => y);
    const a = difference(n1, n2, this.lambdaQ1 && this.lambda());
    return {
      y: this.outProj.forward(finish(a, this.subln, this.lambdaInit)),
      state: branches.flatMap(({ state }) => [...state]),
    };
  }

  /** One branch up to its gated norm: (B, L, dModel) -> (B, L, dInner). */
  #branch(scan: ScanParameters, x: Tensor, { initialState, ...sequence }: MixerOptions): MixerResult {
    const { dInner, dState, headDim, nHeads, nGroups } = this;
    const [batch, length] = x.shape;
    const shared = nGroups * dState;
    const [z, xBC, dt] = scan.inProj.forward(x).split([dInner, dInner + 2 * shared, nHeads]);
    const conv = this.conv1d.run(xBC, initialState?.[0], sequence);
    const [xs, B, C] = conv.y.split([dInner, shared, shared]);
    const { y, finalState } = ssdScan(
      {
        x: xs.reshape(batch, length, nHeads, headDim),
        dt,
        A: scan.aLog.exp().neg(),
        B: B.reshape(batch, length, nGroups, dState),
        C: C.reshape(batch, length, nGroups, dState),
        D: scan.d,
        dtBias: scan.dtBias,
        initialState: initialState?.[1],
      },
      { ...chunks(this.chunkSize), dtLimit: this.dtLimit, ...sequence },
    );
    const gated = rmsNorm(y.reshape(batch, length, dInner), this.norm.weight.compute, {
      gate: z,
      normBeforeGate: this.normBeforeGate,
      groupSize: dInner / this.normGroups,
      eps: this.norm.eps,
    });
    return { y: gated, state: [conv.finalState, finalState] };
  }

  override initialState(batch: number, dtype?: StateDType): MixerState {
    const [channels, width] = this.conv1d.weight.shape;
    const one = [
      [batch, channels, width],
      [batch, this.nHeads, this.headDim, this.dState],
    ];
    const branch = () => zeroState(this.outProj.weight, one, dtype);
    return [...branch(), ...branch()];
  }
}
