// The Mamba-2 mixer (Dao and Gu 2024, section 7; state-spaces/mamba, modules/mamba2.py).
// Knows parameters and routines. Knows no model and no block around it.

import { Build, Derived, type Initializer, init, Linear, type Parameter, RMSNorm } from "@diffmamba/nn";
import {
  concat,
  type KeptTokens,
  keep,
  keptTokens,
  noGrad,
  rmsNorm,
  type SequenceOptions,
  type SsdTensors,
  scope,
  ssdDeferred,
  ssdScan,
  ssdSettle,
  type Tensor,
} from "@diffmamba/tensor";
import { CausalConv1d } from "./conv.js";
import { type DtRange, dtBias, logUniform } from "./init.js";
import {
  chunks,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  type StateDType,
  zeroState,
} from "./mixer.js";

export interface Mamba2Options extends DtRange {
  readonly dModel: number;
  /** N, 128 by default. */
  readonly dState?: number;
  /** Taps of the convolution, 4 by default. */
  readonly dConv?: number;
  /** dInner = expand dModel; 2 by default. */
  readonly expand?: number;
  /** P, channels a head; 64 by default. */
  readonly headDim?: number;
  /** Channels that pass through the scan; the others are a gated product. All (dInner) by default. */
  readonly dSsm?: number;
  /** G, groups that share B and C; 1 by default. */
  readonly nGroups?: number;
  /** Groups over which the gated norm takes its statistics; nGroups by default, as in state-spaces/mamba. */
  readonly normGroups?: number;
  /** dt is clamped to this range; [0, Infinity], no limit, by default. */
  readonly dtLimit?: readonly [number, number];
  /** A_log's first values; log U(1, 16) by default. */
  readonly aInit?: Initializer;
  /** D per channel (H, P) instead of per head (H,); false by default. */
  readonly dHasHeadDim?: boolean;
  /** The gated norm before the output projection; without it the scan gates by itself. true by default. */
  readonly rmsNorm?: boolean;
  /** norm(x) silu(z) instead of norm(x silu(z)); false by default. */
  readonly normBeforeGate?: boolean;
  /** Of the gated norm; 1e-5 by default. */
  readonly normEps?: number;
  /** true by default. */
  readonly convBias?: boolean;
  /** Biases of the input and output projections; false by default. */
  readonly bias?: boolean;
  /** Factor on the first values of the output projection; 1 by default. */
  readonly outScale?: number;
  /** Learn the scan's state before the first token; false by default. */
  readonly learnableInitialState?: boolean;
  /** Tokens a chunk of the scan; the result does not depend on it. What the backend is fastest with by default. */
  readonly chunkSize?: number;
  /** Something is folded into the output projection before it is used; false by default. */
  readonly foldsOutput?: boolean;
}

export class Mamba2 extends Mixer {
  readonly dModel: number;
  readonly dSsm: number;
  /** Channels of the gated product beside the scan; mostly 0. */
  readonly dMlp: number;
  readonly dState: number;
  readonly headDim: number;
  readonly nHeads: number;
  readonly nGroups: number;
  readonly normGroups: number;
  readonly dtLimit: readonly [number, number];
  readonly normBeforeGate: boolean;
  readonly chunkSize: number | undefined;
  /** (2 dInner + 2 G N + H, dModel): rows [z | x | B | C | dt], those of the gated product before them. */
  readonly inProj: Linear;
  /** Over [x | B | C]. */
  readonly conv1d: CausalConv1d;
  /** (H,) */
  readonly dtBias: Parameter;
  /** (H,) */
  readonly aLog: Parameter;
  /** (H,), or (H P,) per channel. */
  readonly d: Parameter;
  readonly norm: RMSNorm | undefined;
  readonly outProj: Linear;
  /** (H, P, N) */
  readonly learnedState: Parameter | undefined;
  readonly #decay = this.hold(new Derived());

  constructor(options: Mamba2Options, build = new Build()) {
    super();
    const { dModel, dState = 128, dConv = 4, expand = 2, headDim = 64, nGroups = 1, chunkSize } = options;
    const dInner = expand * dModel;
    const { dSsm = dInner, dtLimit = [0, Number.POSITIVE_INFINITY], bias = false, convBias = true } = options;
    if (dSsm % headDim !== 0) throw new RangeError(`Mamba2: ${dSsm} channels do not divide into heads of ${headDim}.`);
    const nHeads = dSsm / headDim;
    if (nHeads % nGroups !== 0) throw new RangeError(`Mamba2: ${nHeads} heads do not divide into ${nGroups} groups.`);
    const { normGroups = nGroups } = options;
    if (dSsm % normGroups !== 0) {
      throw new RangeError(`Mamba2: ${dSsm} channels do not divide into ${normGroups} groups of the gated norm.`);
    }
    this.dModel = dModel;
    this.dSsm = dSsm;
    this.dMlp = dInner - dSsm;
    this.dState = dState;
    this.headDim = headDim;
    this.nHeads = nHeads;
    this.nGroups = nGroups;
    this.normGroups = normGroups;
    this.dtLimit = dtLimit;
    this.normBeforeGate = options.normBeforeGate ?? false;
    this.chunkSize = chunkSize;
    const channels = dSsm + 2 * nGroups * dState;
    const inFeatures = dModel;
    const outFeatures = 2 * dInner + 2 * nGroups * dState + nHeads;
    this.inProj = this.register("in_proj", new Linear({ inFeatures, outFeatures, bias }, build.at("in_proj")));
    this.conv1d = this.register(
      "conv1d",
      new CausalConv1d({ channels, width: dConv, bias: convBias }, build.at("conv1d")),
    );
    this.dtBias = this.register("dt_bias", build.dynamics("dt_bias", [nHeads], dtBias(options)));
    this.aLog = this.register("A_log", build.dynamics("A_log", [nHeads], options.aInit ?? logUniform(1, 16)));
    this.d = this.register("D", build.dynamics("D", [options.dHasHeadDim ? dSsm : nHeads], init.ones));
    this.norm =
      options.rmsNorm === false
        ? undefined
        : this.register("norm", new RMSNorm({ dim: dSsm, eps: options.normEps ?? 1e-5 }, build.at("norm")));
    const outInit = init.scaled(init.fanIn(dInner), options.outScale ?? 1);
    this.outProj = this.register(
      "out_proj",
      new Linear(
        { inFeatures: dInner, outFeatures: dModel, bias, init: outInit, folded: options.foldsOutput ?? false },
        build.at("out_proj"),
      ),
    );
    this.learnedState = options.learnableInitialState
      ? this.register("init_states", build.dynamics("init_states", [nHeads, headDim, dState], init.zeros))
      : undefined;
  }

  override run(x: Tensor, options: MixerOptions = {}): MixerResult {
    const { y, state } = this.mix(x, options);
    return { y: this.outProj.forward(y), state };
  }

  /** Everything before the output projection: (B, L, dModel) -> (B, L, dInner). */
  mix(x: Tensor, { initialState, ...sequence }: MixerOptions = {}): MixerResult {
    const { dSsm, dMlp, dState, headDim, nHeads, nGroups, norm } = this;
    const [batch, length] = x.shape;
    const shared = nGroups * dState;
    const projected = this.inProj.forward(x);
    const [z0, x0, z, xBC, dt] = projected.split([dMlp, dMlp, dSsm, dSsm + 2 * shared, nHeads]);
    const conv = this.conv1d.run(xBC, initialState?.[0], sequence);
    const [xs, B, C] = conv.y.split([dSsm, shared, shared]);
    const heads = (tensor: Tensor) => tensor.reshape(batch, length, nHeads, headDim);
    const groups = (tensor: Tensor) => tensor.reshape(batch, length, nGroups, dState);
    const inputs = {
      x: heads(xs),
      dt,
      A: this.#decay.get(this, x, [this.aLog], () => this.aLog.exp().neg()),
      B: groups(B),
      C: groups(C),
      D: this.d.size === nHeads ? this.d : this.d.reshape(nHeads, headDim),
      ...(norm === undefined && { z: heads(z) }),
      dtBias: this.dtBias,
    };
    const scan = this.#scan(inputs, initialState, sequence);
    const flat = scan.y.reshape(batch, length, dSsm);
    const gated =
      norm === undefined
        ? flat
        : rmsNorm(flat, norm.weight.compute, {
            gate: z,
            normBeforeGate: this.normBeforeGate,
            groupSize: dSsm / this.normGroups,
            eps: norm.eps,
          });
    const y = dMlp === 0 ? gated : concat([z0.silu().mul(x0), gated]);
    return { y, state: [conv.finalState, ...scan.state] };
  }

  /** y, and all of the state but the convolution's. */
  #scan(inputs: SsdTensors, before: MixerState | undefined, sequence: SequenceOptions): MixerResult {
    const { dtLimit, nHeads, headDim, dState } = this;
    const kept = keptOf(before);
    if (before !== undefined && kept !== undefined) {
      const [, initialState, ...beside] = before;
      const y = ssdDeferred({ ...inputs, initialState }, kept, { dtLimit, ...sequence });
      return { y, state: [initialState, ...beside].map((tensor) => tensor.alias()) };
    }
    const initialState = before?.[1] ?? this.learnedState?.expand(inputs.x.dim(0), nHeads, headDim, dState);
    const options = { ...chunks(this.chunkSize), dtLimit, ...sequence };
    const { y, finalState } = ssdScan({ ...inputs, initialState }, options);
    return { y, state: [finalState] };
  }

  override initialState(batch: number, dtype?: StateDType): MixerState {
    const { nHeads, headDim, dState } = this;
    const [channels, width] = this.conv1d.weight.shape;
    const shapes = [
      [batch, channels, width],
      [batch, nHeads, headDim, dState],
    ];
    const state = zeroState(this.aLog, shapes, dtype);
    if (this.learnedState !== undefined) state[1].assign(this.learnedState);
    return state;
  }

  override defer(state: MixerState, count: Tensor): MixerState {
    const { nHeads: heads, headDim, nGroups: groups, dState } = this;
    const shape = { batch: state[1].dim(0), heads, headDim, groups, dState };
    const { dtype } = this.conv1d.weight.compute;
    const places = count.device.backend.keepsTokens?.(shape, { dtype, stateDType: state[1].dtype }) ?? 0;
    if (places === 0) return state;
    const { x, B, steps } = scope(() => keptTokens(shape, places, dtype, count));
    return [...state, ...[x, B, steps].map((tensor) => keep(tensor)), count];
  }

  override settle(state: MixerState): void {
    const kept = keptOf(state);
    if (kept !== undefined) noGrad(() => scope(() => ssdSettle(state[1], this.aLog.exp().neg(), kept)));
  }
}

/** What {@link Mamba2.defer} has put beside a state. */
function keptOf(state: MixerState | undefined): KeptTokens | undefined {
  if (state === undefined || state.length <= 2) return undefined;
  const [, , x, B, steps, count] = state;
  return { x, B, steps, count };
}
