// The Mamba-1 mixer (Gu and Dao 2023, section 3.4; state-spaces/mamba, modules/mamba_simple.py).
// Knows parameters and routines. Knows no model and no block around it.

import { Build, Derived, type Initializer, init, Linear, type Parameter } from "@diffmamba/nn";
import { linear, selectiveScan, type Tensor } from "@diffmamba/tensor";
import { CausalConv1d } from "./conv.js";
import { type DtRange, dtBias, s4dReal } from "./init.js";
import {
  chunks,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  type StateDType,
  zeroState,
} from "./mixer.js";

export interface MambaOptions extends DtRange {
  readonly dModel: number;
  /** N, 16 by default. */
  readonly dState?: number;
  /** Taps of the convolution, 4 by default. */
  readonly dConv?: number;
  /** dInner = expand dModel; 2 by default. */
  readonly expand?: number;
  /** ceil(dModel / 16) by default: of dModel, not of dInner. */
  readonly dtRank?: number;
  /** The weight of dt's projection: "random" is U(+-dtRank^-1/2), "constant" that bound itself. "random" by default. */
  readonly dtInit?: "random" | "constant";
  /** Factor on that bound; 1 by default. */
  readonly dtScale?: number;
  /** true by default. */
  readonly convBias?: boolean;
  /** Biases of the input and output projections; false by default. */
  readonly bias?: boolean;
  /** Factor on the first values of the output projection, 1/sqrt(layers) in state-spaces/mamba; 1 by default. */
  readonly outScale?: number;
  /** Learn the scan's state before the first token; false by default. */
  readonly learnableInitialState?: boolean;
  /** Tokens between two states kept for backward; what the backend is fastest with by default. */
  readonly chunkSize?: number;
}

export class Mamba extends Mixer {
  readonly dModel: number;
  readonly dInner: number;
  readonly dState: number;
  readonly dtRank: number;
  readonly chunkSize: number | undefined;
  /** (2 dInner, dModel): rows [x | z]. */
  readonly inProj: Linear;
  readonly conv1d: CausalConv1d;
  /** (dtRank + 2 N, dInner): rows [dt | B | C]. */
  readonly xProj: Linear;
  /** (dInner, dtRank) and its bias, which enters the softplus. */
  readonly dtProj: Linear;
  /** (dInner, N) */
  readonly aLog: Parameter;
  /** (dInner,) */
  readonly d: Parameter;
  readonly outProj: Linear;
  /** (dInner, N) */
  readonly learnedState: Parameter | undefined;
  readonly #decay = this.hold(new Derived());

  constructor(options: MambaOptions, build = new Build()) {
    super();
    const { dModel, dState = 16, dConv = 4, expand = 2, convBias = true, bias = false, chunkSize } = options;
    const { dtRank = Math.ceil(dModel / 16), dtInit = "random", dtScale = 1, outScale = 1 } = options;
    const dInner = expand * dModel;
    this.dModel = dModel;
    this.dInner = dInner;
    this.dState = dState;
    this.dtRank = dtRank;
    this.chunkSize = chunkSize;
    const project = (name: string, inFeatures: number, outFeatures: number, hasBias = bias, initial?: Initializer) =>
      this.register(
        name,
        new Linear({ inFeatures, outFeatures, bias: hasBias, ...(initial && { init: initial }) }, build.at(name)),
      );
    this.inProj = project("in_proj", dModel, 2 * dInner);
    this.conv1d = this.register(
      "conv1d",
      new CausalConv1d({ channels: dInner, width: dConv, bias: convBias }, build.at("conv1d")),
    );
    this.xProj = project("x_proj", dInner, dtRank + 2 * dState, false);
    const bound = dtRank ** -0.5 * dtScale;
    const dtWeight = dtInit === "random" ? init.uniform(-bound, bound) : init.constant(bound);
    this.dtProj = this.register(
      "dt_proj",
      new Linear(
        { inFeatures: dtRank, outFeatures: dInner, init: dtWeight, biasInit: dtBias(options), wideBias: true },
        build.at("dt_proj"),
      ),
    );
    this.aLog = this.register("A_log", build.dynamics("A_log", [dInner, dState], s4dReal));
    this.d = this.register("D", build.dynamics("D", [dInner], init.ones));
    this.outProj = project("out_proj", dInner, dModel, bias, init.scaled(init.fanIn(dInner), outScale));
    this.learnedState = options.learnableInitialState
      ? this.register("init_states", build.dynamics("init_states", [dInner, dState], init.zeros))
      : undefined;
  }

  override run(x: Tensor, { initialState, ...sequence }: MixerOptions = {}): MixerResult {
    const [xs, z] = this.inProj.forward(x).split([this.dInner, this.dInner]);
    const conv = this.conv1d.run(xs, initialState?.[0], sequence);
    const [dt, B, C] = this.xProj.forward(conv.y).split([this.dtRank, this.dState, this.dState]);
    const { y, finalState } = selectiveScan(
      {
        u: conv.y,
        delta: linear(dt, this.dtProj.weight.compute),
        A: this.#decay.get(this, x, [this.aLog], () => this.aLog.exp().neg()),
        B,
        C,
        D: this.d,
        z,
        deltaBias: this.dtProj.bias,
        initialState: initialState?.[1] ?? this.learnedState?.expand(x.dim(0), this.dInner, this.dState),
      },
      { ...chunks(this.chunkSize), ...sequence },
    );
    return { y: this.outProj.forward(y), state: [conv.finalState, finalState] };
  }

  override initialState(batch: number, dtype?: StateDType): MixerState {
    const { dInner, dState } = this;
    const width = this.conv1d.weight.dim(1);
    const shapes = [
      [batch, dInner, width],
      [batch, dInner, dState],
    ];
    const state = zeroState(this.aLog, shapes, dtype);
    if (this.learnedState !== undefined) state[1].assign(this.learnedState);
    return state;
  }
}
