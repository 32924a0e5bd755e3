// The stack of residual sublayers between embedding and head: mixers and feed-forwards, normed before or after.
// Knows modules. Knows no vocabulary, no loss and no file.

import { differentialLayers } from "@diffmamba/differential";
import { Build, Dropout, FeedForward, LayerNorm, Module, RMSNorm } from "@diffmamba/nn";
import { Mixer, type MixerState } from "@diffmamba/ssm";
import { keep, type SequenceOptions, scope, type Tensor } from "@diffmamba/tensor";
import type { ModelConfig } from "./config.js";
import { createMixer } from "./mixers.js";

/** The state of every mixer, in their order: a constant amount of memory, whatever was read. */
export type ModelState = readonly MixerState[];

/** Packing, padding and states. */
export interface BackboneOptions extends SequenceOptions {
  /** Before the first token; every mixer's own by default. Gradients flow into it. */
  readonly initialState?: ModelState;
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

  /** (B, L, D) -> (B, L, D), and the mixer's state after it. */
  run(x: Tensor, options: SequenceOptions & { readonly initialState?: MixerState }): { y: Tensor; state: MixerState } {
    return scope(() => {
      const input = this.residual === "pre" ? this.norm.forward(x) : x;
      const { y, state } =
        this.layer instanceof Mixer ? this.layer.run(input, options) : { y: this.layer.forward(input), state: [] };
      const sum = x.add(this.dropout.forward(y));
      return { y: this.residual === "pre" ? sum : this.norm.forward(sum), state };
    });
  }
}

export class Backbone extends Module {
  readonly sublayers: readonly Sublayer[];
  readonly mixers: readonly Mixer[];

  constructor(config: ModelConfig, build = new Build()) {
    super();
    const { nLayers, mixersPerBlock, feedForward, residual } = config;
    const perBlock = mixersPerBlock + (feedForward > 0 ? 1 : 0);
    const differential = differentialLayers(config.pattern, nLayers * mixersPerBlock);
    const outScale = config.rescaleResidual ? 1 / Math.sqrt(nLayers * perBlock) : 1;
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

  /** (B, L, D) -> (B, L, D), and the state of every mixer after it. */
  run(x: Tensor, options: BackboneOptions = {}): { y: Tensor; state: ModelState } {
    const state: MixerState[] = [];
    return { y: this.#through(x, options, (after) => void state.push(after)), state };
  }

  /** {@link run} for whoever wants no states: each is freed at once. */
  forward(x: Tensor, options: BackboneOptions = {}): Tensor {
    return this.#through(x, options, (after) => {
      for (const tensor of after) tensor.dispose();
    });
  }

  #through(x: Tensor, { initialState, ...sequence }: BackboneOptions, visit: (after: MixerState) => void): Tensor {
    let y = x;
    let mixers = 0;
    for (const sublayer of this.sublayers) {
      const isMixer = sublayer.layer instanceof Mixer;
      const before = isMixer ? initialState?.[mixers++] : undefined;
      const result = sublayer.run(y, { ...sequence, ...(before && { initialState: before }) });
      if (isMixer) visit(result.state);
      if (y !== x) y.dispose();
      y = result.y;
    }
    return y;
  }

  /** The state before any token, for `batch` rows. The caller owns it. */
  initialState(batch: number): ModelState {
    return this.mixers.map((mixer) => mixer.initialState(batch).map((tensor) => keep(tensor)));
  }
}
