// The stack of residual sublayers between embedding and head: mixers and feed-forwards, normed before or after.
// Knows modules. Knows no vocabulary, no loss and no file.

import { differentialLayers } from "@diffmamba/differential";
import { Build, Dropout, FeedForward, LayerNorm, Module, RMSNorm } from "@diffmamba/nn";
import { Mixer, type MixerState, type StateDType } from "@diffmamba/ssm";
import { addRmsNorm, keep, recompute, type SequenceOptions, scope, type Tensor } from "@diffmamba/tensor";
import type { ModelConfig } from "./config.js";
import { createMixer } from "./mixers.js";

/** The state of every mixer, in their order: a constant amount of memory, whatever was read. */
export type ModelState = readonly MixerState[];

/** Packing, padding and states. */
export interface BackboneOptions extends SequenceOptions {
  /** Before the first token; every mixer's own by default. Gradients flow into it. */
  readonly initialState?: ModelState;
}

/**
 * What goes from sublayer to sublayer, (B, L, D) each. In a pre-norm stack the residual stream is f32 whatever the layers compute
 * in: a sum of dozens of layers in bf16 would lose what the later ones add, and the 12 bytes a value of an add and norm in f32
 * instead of 8 are a fiftieth of a layer's traffic. It is summed with a layer's output by the norm that comes next.
 */
interface Stream {
  readonly x: Tensor;
  /** The last layer's output, still to be added to x. */
  readonly y?: Tensor | undefined;
}

/** One residual sublayer: x + f(norm(x)), or norm(x + dropout(f(x))). */
export class Sublayer extends Module {
  readonly norm: RMSNorm | LayerNorm;
  readonly layer: Mixer | FeedForward;
  readonly dropout: Dropout;

  constructor(
    readonly residual: "pre" | "post",
    layer: Mixer | FeedForward,
    /** Where the layer's tensors stand among the sublayer's; "" for beside the norm. */
    layerName: string,
    config: ModelConfig,
    build: Build,
  ) {
    super();
    const name = residual === "pre" ? "norm" : "norm.norm";
    const Norm = config.norm === "rms" ? RMSNorm : LayerNorm;
    this.norm = this.register(name, new Norm({ dim: config.dModel, eps: config.normEps }, build.at(name)));
    this.layer = this.register(layerName, layer);
    this.dropout = this.register("dropout", new Dropout(config.dropout, build.at("dropout")));
  }

  /** The stream after it, and the mixer's state. */
  step(
    { x, y }: Stream,
    options: SequenceOptions & { readonly initialState?: MixerState },
  ): { readonly stream: Stream; readonly state: MixerState } {
    return scope(() => {
      const { layer, norm, dropout } = this;
      const pre = this.residual === "pre" ? addNorm(norm, x, y) : undefined;
      const input = pre?.normed ?? x;
      const { y: out, state } =
        layer instanceof Mixer ? layer.run(input, options) : { y: layer.forward(input), state: [] };
      const dropped = dropout.forward(out);
      if (pre !== undefined) return { stream: { x: pre.sum, y: dropped }, state };
      return { stream: { x: addNorm(norm, x, dropped).normed }, state };
    });
  }
}

/** x + y, and the norm of it in the type that the norm's weight computes in. */
function addNorm(norm: RMSNorm | LayerNorm, x: Tensor, y: Tensor | undefined): { sum: Tensor; normed: Tensor } {
  if (norm instanceof RMSNorm) return addRmsNorm(x, y, norm.weight.compute, { eps: norm.eps });
  const sum = y === undefined ? x : x.add(y.cast(x.dtype));
  return { sum, normed: norm.forward(sum.cast(norm.weight.compute.dtype)) };
}

export class Backbone extends Module {
  readonly sublayers: readonly Sublayer[];
  readonly mixers: readonly Mixer[];
  readonly residual: "pre" | "post";
  /**
   * Activation checkpointing: under a tape a sublayer keeps its input alone, and is run again in backward. The same bits, for a third
   * more computation and a fraction of the memory. false at first.
   */
  recomputes = false;

  constructor(config: ModelConfig, build = new Build()) {
    super();
    const { nLayers, mixersPerBlock, feedForward, residual } = config;
    const perBlock = mixersPerBlock + (feedForward > 0 ? 1 : 0);
    const differential = differentialLayers(config.pattern, nLayers * mixersPerBlock);
    const outScale = config.rescaleResidual ? 1 / Math.sqrt(nLayers * perBlock) : 1;
    this.residual = residual;
    const sublayers: Sublayer[] = [];
    const mixers: Mixer[] = [];
    for (let index = 0; index < nLayers * perBlock; index++) {
      const name = `layers.${index}`;
      const isMixer = index % perBlock < mixersPerBlock;
      const place = {
        differential: differential.has(mixers.length),
        lambdaIndex: config.lambdaIndex === "mixer" ? mixers.length : index,
        outScale,
        branchNames: residual === "pre" ? (["mixer_1", "mixer_2"] as const) : (["m1", "m2"] as const),
      };
      const branches = place.differential && (config.variant === "diffmamba" || config.variant === "diffmamba2");
      const layerName = residual === "post" ? "layer" : branches ? "" : "mixer";
      const at = build.at(name).at(layerName);
      let layer: Mixer | FeedForward;
      if (isMixer) {
        layer = createMixer(config, place, at);
        mixers.push(layer);
      } else {
        const { dModel, dropout } = config;
        layer = new FeedForward({ dModel, dHidden: feedForward * dModel, dropout }, at);
      }
      sublayers.push(this.register(name, new Sublayer(residual, layer, layerName, config, build.at(name))));
    }
    this.sublayers = sublayers;
    this.mixers = mixers;
  }

  /**
   * (B, L, D) -> (B, L, D), and the state of every mixer after it.
   * @param norm comes after the last sublayer
   */
  run(x: Tensor, options: BackboneOptions = {}, norm?: RMSNorm | LayerNorm): { y: Tensor; state: ModelState } {
    const state: MixerState[] = [];
    return { y: this.#through(x, options, norm, (after) => void state.push(after)), state };
  }

  /** {@link run} for whoever wants no states: each is freed at once, and `recomputes` is heeded. */
  forward(x: Tensor, options: BackboneOptions = {}, norm?: RMSNorm | LayerNorm): Tensor {
    return this.#through(x, options, norm, undefined);
  }

  #through(
    x: Tensor,
    { initialState, ...sequence }: BackboneOptions,
    norm: RMSNorm | LayerNorm | undefined,
    visit: ((after: MixerState) => void) | undefined,
  ): Tensor {
    const { residual } = this;
    let stream: Stream = { x: residual === "pre" ? x.cast(x.dtype === "f64" ? "f64" : "f32") : x };
    let mixers = 0;
    for (const sublayer of this.sublayers) {
      const isMixer = sublayer.layer instanceof Mixer;
      const before = isMixer ? initialState?.[mixers++] : undefined;
      const options = { ...sequence, ...(before && { initialState: before }) };
      const next = visit === undefined ? this.#stateless(sublayer, stream, options) : sublayer.step(stream, options);
      if (isMixer) visit?.(next.state);
      for (const tensor of [stream.x, stream.y]) if (tensor !== x && tensor !== next.stream.x) tensor?.dispose();
      stream = next.stream;
    }
    return scope(() => {
      if (norm !== undefined) return addNorm(norm, stream.x, stream.y).normed;
      return stream.y === undefined ? stream.x : stream.x.add(stream.y.cast(stream.x.dtype));
    });
  }

  /** A sublayer whose state nobody wants: run again in backward where `recomputes` says so. */
  #stateless(sublayer: Sublayer, { x, y }: Stream, options: SequenceOptions): { stream: Stream; state: MixerState } {
    const step = (x: Tensor, y: Tensor | undefined) => {
      const { stream, state } = sublayer.step({ x, y }, options);
      for (const tensor of state) tensor.dispose();
      return stream;
    };
    if (!this.recomputes) return { stream: step(x, y), state: [] };
    const [sum, out] = recompute(
      (x, y?: Tensor) => {
        const stream = step(x, y);
        return [stream.x, ...(stream.y ? [stream.y] : [])];
      },
      [x, ...(y ? [y] : [])],
    );
    return { stream: { x: sum, y: out }, state: [] };
  }

  /** The state before any token, for `batch` rows, the scans' kept in `dtype`. The caller owns it. */
  initialState(batch: number, dtype?: StateDType): ModelState {
    return this.mixers.map((mixer) => mixer.initialState(batch, dtype).map((tensor) => keep(tensor)));
  }
}
