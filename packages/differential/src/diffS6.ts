// Diff-S6: the subtraction inside the mixer, around the scan, with the projections and the convolution shared.
// The Mamba-1 form of the released code subtracts the gated scans as they are: no lambda, no norm.
// Knows parameters and routines. Knows no model.

import { Build, init, Linear, type Parameter } from "@diffmamba/nn";
import {
  CausalConv1d,
  chunks,
  dtBias,
  type MambaOptions,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  type StateDType,
  s4dReal,
  zeroState,
} from "@diffmamba/ssm";
import { linear, selectiveScan, type Tensor } from "@diffmamba/tensor";
import { difference } from "./combine.js";

export type DiffS6Options = Omit<MambaOptions, "learnableInitialState" | "dtInit" | "dtScale">;

/** What each of the two scans has of its own. */
interface ScanParameters {
  /** (dtRank + 2 N, dInner): rows [dt | B | C]. */
  readonly xProj: Linear;
  readonly dtProj: Linear;
  /** (dInner, N) */
  readonly aLog: Parameter;
  /** (dInner,) */
  readonly d: Parameter;
}

export class DiffS6 extends Mixer {
  readonly dInner: number;
  readonly dState: number;
  readonly dtRank: number;
  readonly chunkSize: number | undefined;
  /** (2 dInner, dModel): rows [x | z]. */
  readonly inProj: Linear;
  readonly conv1d: CausalConv1d;
  readonly scans: readonly [ScanParameters, ScanParameters];
  readonly outProj: Linear;

  constructor(options: DiffS6Options, build = new Build()) {
    super();
    const { dModel, dState = 16, dConv = 4, expand = 2, convBias = true, bias = false, chunkSize } = options;
    const { dtRank = Math.ceil(dModel / 16), outScale = 1 } = options;
    const dInner = expand * dModel;
    this.dInner = dInner;
    this.dState = dState;
    this.dtRank = dtRank;
    this.chunkSize = chunkSize;
    this.inProj = this.register(
      "in_proj",
      new Linear({ inFeatures: dModel, outFeatures: 2 * dInner, bias }, build.at("in_proj")),
    );
    this.conv1d = this.register(
      "conv1d",
      new CausalConv1d({ channels: dInner, width: dConv, bias: convBias }, build.at("conv1d")),
    );
    const bound = dtRank ** -0.5;
    const scan = (i: 1 | 2): ScanParameters => {
      const [x, dt] = [`x${i}_proj`, `dt${i}_proj`];
      return {
        xProj: this.register(
          x,
          new Linear({ inFeatures: dInner, outFeatures: dtRank + 2 * dState, bias: false }, build.at(x)),
        ),
        dtProj: this.register(
          dt,
          new Linear(
            {
              inFeatures: dtRank,
              outFeatures: dInner,
              init: init.uniform(-bound, bound),
              biasInit: dtBias(options),
              wideBias: true,
            },
            build.at(dt),
          ),
        ),
        aLog: this.register(`A${i}_log`, build.dynamics(`A${i}_log`, [dInner, dState], s4dReal)),
        d: this.register(`D${i}`, build.dynamics(`D${i}`, [dInner], init.ones)),
      };
    };
    this.scans = [scan(1), scan(2)];
    const outInit = init.scaled(init.fanIn(dInner), outScale);
    this.outProj = this.register(
      "out_proj",
      new Linear({ inFeatures: dInner, outFeatures: dModel, bias, init: outInit }, build.at("out_proj")),
    );
  }

  override run(x: Tensor, { initialState, ...sequence }: MixerOptions = {}): MixerResult {
    const [xs, z] = this.inProj.forward(x).split([this.dInner, this.dInner]);
    const conv = this.conv1d.run(xs, initialState?.[0], sequence);
    const [first, second] = this.scans.map(({ xProj, dtProj, aLog, d }, i) => {
      const [dt, B, C] = xProj.forward(conv.y).split([this.dtRank, this.dState, this.dState]);
      return selectiveScan(
        {
          u: conv.y,
          delta: linear(dt, dtProj.weight.compute),
          A: aLog.exp().neg(),
          B,
          C,
          D: d,
          z,
          deltaBias: dtProj.bias,
          initialState: initialState?.[1 + i],
        },
        { ...chunks(this.chunkSize), ...sequence },
      );
    });
    return {
      y: this.outProj.forward(difference(first.y, second.y, 1)),
      state: [conv.finalState, first.finalState, second.finalState],
    };
  }

  override initialState(batch: number, dtype?: StateDType): MixerState {
    const { dInner, dState } = this;
    const shapes = [
      [batch, dInner, this.conv1d.weight.dim(1)],
      [batch, dInner, dState],
      [batch, dInner, dState],
    ];
    return zeroState(this.outProj.weight, shapes, dtype);
  }
}
