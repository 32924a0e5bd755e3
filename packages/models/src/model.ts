// MambaLM: embedding, backbone, head. One class for every configuration.
// Knows modules. Knows no file, no tokenizer and no sampling.

import { DiffMamba, DiffMamba2, DiffMamba2E, DiffS6Mamba2 } from "@diffmamba/differential";
import { Build, type BuildOptions, type Clock, Dropout, LayerNorm, Module, RMSNorm } from "@diffmamba/nn";
import { type CrossEntropyOptions, noGrad, scope, type Tensor, ValueError } from "@diffmamba/tensor";
import { AdaptiveVocabulary } from "./adaptive.js";
import { Backbone, type BackboneOptions, type ModelState } from "./backbone.js";
import { type ModelConfig, modelConfig } from "./config.js";
import { PlainVocabulary, type Vocabulary } from "./heads.js";

export class MambaLM extends Module {
  readonly config: ModelConfig;
  readonly vocabulary: Vocabulary;
  readonly backbone: Backbone;
  /** The norm before the head; a post-norm model has none. */
  readonly normF: RMSNorm | LayerNorm | undefined;
  readonly embeddingDropout: Dropout;
  /** Counts dropout's random numbers; the trainer sets it. */
  readonly clock: Clock;

  constructor(config: ModelConfig, build: Build) {
    super();
    this.config = config;
    const { dModel, normEps } = config;
    this.clock = build.clock;
    const vocabulary =
      config.adaptive === null ? new PlainVocabulary(config, build) : new AdaptiveVocabulary(config, build);
    this.vocabulary = this.register("", vocabulary);
    this.embeddingDropout = this.register("drop", new Dropout(config.embeddingDropout, build.at("drop")));
    this.backbone = this.register("backbone", new Backbone(config, build.at("backbone")));
    const Norm = config.norm === "rms" ? RMSNorm : LayerNorm;
    const name = "backbone.norm_f";
    this.normF =
      config.residual === "pre"
        ? this.register(name, new Norm({ dim: dModel, eps: normEps }, build.at(name)))
        : undefined;
  }

  /** A model with its first values drawn from the seed. @throws ConfigError */
  static create(config: Partial<ModelConfig>, options: BuildOptions = {}): MambaLM {
    return new MambaLM(modelConfig(config), new Build(options));
  }

  /** Tokens (B, L) i32 -> hidden (B, L, D) before the head, and the state after the last token. */
  run(tokens: Tensor, options: BackboneOptions = {}): { hidden: Tensor; state: ModelState } {
    return scope(() => {
      const { embeddingScale } = this.config;
      const embedded = this.embeddingDropout.forward(this.vocabulary.embed(tokens));
      const x = embeddingScale === 1 ? embedded : embedded.mul(embeddingScale);
      const { y, state } = this.backbone.run(x, options);
      return { hidden: this.normF?.forward(y) ?? y, state };
    });
  }

  /** Tokens (B, L) i32 -> logits (B, L, V). */
  forward(tokens: Tensor, options: BackboneOptions = {}): Tensor {
    return scope(() => this.vocabulary.logits(this.run(tokens, options).hidden));
  }

  /** Tokens and targets (B, L) i32 -> nats: the mean over the targets that are not -100, or as `reduction` says. */
  loss(tokens: Tensor, targets: Tensor, options: BackboneOptions & CrossEntropyOptions = {}): Tensor {
    const { reduction, ...sequence } = options;
    return scope(() =>
      this.vocabulary.loss(this.run(tokens, sequence).hidden, targets, { ...(reduction && { reduction }) }),
    );
  }

  /** The state before any token, for `batch` rows. The caller owns it. */
  initialState(batch: number): ModelState {
    return this.backbone.initialState(batch);
  }

  /**
   * Tokens (B, L) i32 -> logits (B, V) after each row's last token (its true last with `lengths`), going on from `state`,
   * which is replaced in place. L = 1 is a step, more is a prefill. Outside a tape.
   */
  advance(tokens: Tensor, state: ModelState, options: Omit<BackboneOptions, "initialState"> = {}): Tensor {
    return noGrad(() =>
      scope(() => {
        const { hidden, state: after } = this.run(tokens, { ...options, initialState: state });
        for (const [i, mixer] of state.entries()) for (const [j, x] of mixer.entries()) x.assign(after[i][j]);
        return this.vocabulary.logits(lastOf(hidden, options.lengths));
      }),
    );
  }

  /** The lambda of every differential mixer that has one: () tensors, the mean where there is one a channel. */
  lambdas(): { layer: number; value: Tensor }[] {
    return noGrad(() =>
      this.backbone.mixers.flatMap((mixer, layer) => {
        const has = mixer instanceof DiffMamba2 || mixer instanceof DiffMamba2E || mixer instanceof DiffS6Mamba2;
        if (!(mixer instanceof DiffMamba) && !(has && mixer.lambdaQ1 !== undefined)) return [];
        return [{ layer, value: scope(() => mixer.lambda().mean()) }];
      }),
    );
  }

  /** Token numbers as a (B, L) tensor. @throws ValueError naming a token outside the vocabulary */
  tokens(rows: readonly ArrayLike<number>[] | ArrayLike<number>, batch?: number): Tensor {
    const list: readonly ArrayLike<number>[] = isRows(rows) ? rows : [rows];
    const flat = Int32Array.from(list.flatMap((row) => Array.from(row)));
    const bad = flat.findIndex((token) => token < 0 || token >= this.config.vocabSize);
    if (bad >= 0) {
      throw new ValueError(
        `token ${flat[bad]} at position ${bad} is outside the vocabulary of ${this.config.vocabSize}.`,
      );
    }
    const count = batch ?? list.length;
    return this.device.from(flat, [count, flat.length / Math.max(count, 1)], "i32");
  }

  override dispose(): void {
    super.dispose();
    this.clock.step.dispose();
  }
}

function isRows(rows: readonly ArrayLike<number>[] | ArrayLike<number>): rows is readonly ArrayLike<number>[] {
  return rows.length > 0 && typeof rows[0] === "object";
}

/** (B, L, D) -> (B, D): each row's last token, at lengths - 1 where given. */
function lastOf(hidden: Tensor, lengths: Tensor | undefined): Tensor {
  const [batch, length, width] = hidden.shape;
  if (lengths === undefined) return hidden.slice(1, length - 1).reshape(batch, width);
  const rows = hidden.device.arange(batch).mul(length).add(lengths).sub(1);
  return hidden.reshape(batch * length, width).gather(rows);
}
