// MambaLM: embedding, backbone, head. One class for every configuration.
// Knows modules, and that a model has a folder. Knows no form of a folder, no tokenizer and no sampling.

import { DiffMamba, DiffMamba2, DiffMamba2E, DiffS6Mamba2 } from "@diffmamba/differential";
import type { FileSystem } from "@diffmamba/files";
import { Build, type BuildOptions, type Clock, LayerNorm, Module, RMSNorm } from "@diffmamba/nn";
import { type Mixer, replaceState, type StateDType, stepOptions } from "@diffmamba/ssm";
import { type CrossEntropyOptions, noGrad, scope, type Tensor, ValueError } from "@diffmamba/tensor";
import { AdaptiveVocabulary } from "./adaptive.js";
import { Backbone, type BackboneOptions, type ModelState } from "./backbone.js";
import { type ModelConfig, modelConfig } from "./config.js";
import { type GenerateOptions, type GenerateStep, generate } from "./generate.js";
import { PlainVocabulary, type Vocabulary } from "./heads.js";
import { describeModel, fillModel, noTokenIds, type SaveOptions, saveModel, type TokenIds } from "./hf/folder.js";

/** The lambda of one differential mixer: how much of the second branch is subtracted. */
export interface LayerLambda {
  /** Which mixer, counted from 0. */
  readonly layer: number;
  /** Path of the residual sublayer that it stands in. */
  readonly name: string;
  /** () of the parameters' type; the mean where there is one a channel. The caller owns it. */
  readonly value: Tensor;
}

/** How a batch is read: packing, padding, and the state to go on from. */
export type ForwardOptions = BackboneOptions;

export type LossOptions = BackboneOptions & Pick<CrossEntropyOptions, "reduction">;

import { type PrefillOptions, type Prompt, prefill } from "./prefill.js";
import type { PromptState } from "./promptState.js";

export class MambaLM extends Module {
  readonly config: ModelConfig;
  readonly vocabulary: Vocabulary;
  readonly backbone: Backbone;
  /** The norm before the head; a post-norm model has none. */
  readonly normF: RMSNorm | LayerNorm | undefined;
  /** Counts dropout's random numbers; the trainer sets it. */
  readonly clock: Clock;
  /** What the folder that the model was loaded from says of special tokens. */
  readonly tokenIds: TokenIds;

  constructor(config: ModelConfig, build: Build, tokenIds: TokenIds = noTokenIds) {
    super();
    this.config = config;
    this.tokenIds = tokenIds;
    const { dModel, normEps } = config;
    this.clock = build.clock;
    const vocabulary =
      config.adaptive === null ? new PlainVocabulary(config, build) : new AdaptiveVocabulary(config, build);
    this.vocabulary = this.register("", vocabulary);
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

  /**
   * The model of a folder: a Hugging Face one of `mamba` or `mamba2` (with `diffmamba` or without), the original form of
   * state-spaces/mamba, or what {@link save} wrote. Weights come from safetensors or from PyTorch's zip, in shards or in
   * one, and are converted to `dtype` (f32 by default) where they are of another type.
   * @throws FormatError naming the file, and the key, value or tensor that is missing, wrong or not supported; FileError
   */
  static async load(files: FileSystem, folder: string, options: BuildOptions = {}): Promise<MambaLM> {
    const { config, tokenIds } = await describeModel(files, folder);
    const model = new MambaLM(config, new Build({ ...options, draw: false }), tokenIds);
    try {
      await fillModel(model, config, files, folder);
    } catch (error) {
      model.dispose();
      throw error;
    }
    return model;
  }

  /**
   * Writes config.json and the weights to a folder, bit for bit: in the form of the Hugging Face classes where they can
   * hold the model, else in the same layout with a configuration of this project. @throws FileError
   */
  async save(files: FileSystem, folder: string, options: SaveOptions = {}): Promise<void> {
    await saveModel(this, this, files, folder, options);
  }

  /**
   * Tokens (B, L) i32 -> hidden (B, L, D) before the head, and the state after the last token.
   * @throws ValueError for a token outside the vocabulary (on the reference), and for packed sequences with a learned
   * initial state: the scan begins each but the first with zeros
   */
  run(tokens: Tensor, options: BackboneOptions = {}): { hidden: Tensor; state: ModelState } {
    return scope(() => {
      const { y, state } = this.backbone.run(this.#embed(tokens, options), options, this.normF);
      return { hidden: y, state };
    });
  }

  #embed(tokens: Tensor, options: BackboneOptions): Tensor {
    if (options.seqIdx !== undefined && this.config.learnableInitialState) {
      throw new ValueError(
        "seqIdx: sequences cannot be packed where the initial state is learned; give them a row each.",
      );
    }
    const { embeddingScale } = this.config;
    const embedded = this.vocabulary.embed(tokens);
    return embeddingScale === 1 ? embedded : embedded.mul(embeddingScale);
  }

  /** Like the hidden values of {@link run}; no state outlives its layer. */
  #hidden(tokens: Tensor, options: BackboneOptions): Tensor {
    return scope(() => this.backbone.forward(this.#embed(tokens, options), options, this.normF));
  }

  /** Tokens (B, L) i32 -> logits (B, L, V). */
  forward(tokens: Tensor, options: ForwardOptions = {}): Tensor {
    return scope(() => this.vocabulary.logits(this.#hidden(tokens, options)));
  }

  /** Tokens and targets (B, L) i32 -> nats: the mean over the targets that are not -100, or as `reduction` says. */
  loss(tokens: Tensor, targets: Tensor, options: LossOptions = {}): Tensor {
    const { reduction, ...sequence } = options;
    return scope(() =>
      this.vocabulary.loss(this.#hidden(tokens, sequence), targets, { ...(reduction && { reduction }) }),
    );
  }

  /** The state before any token, for `batch` rows, the scans' kept in `dtype`. The caller owns it. */
  initialState(batch: number, dtype?: StateDType): ModelState {
    return this.backbone.initialState(batch, dtype);
  }

  /**
   * Tokens (B, L) i32 -> logits (B, V) after each row's last token (its true last with `lengths`, at least 1 each), going on
   * from `state`, which is replaced in place. L = 1 is a step, more is a prefill. Outside a tape, in evaluation mode.
   */
  advance(tokens: Tensor, state: ModelState, options: Omit<BackboneOptions, "initialState"> = {}): Tensor {
    return noGrad(() =>
      scope(() => {
        const { hidden, state: after } = this.run(tokens, { ...options, ...stepOptions(tokens), initialState: state });
        for (const [i, mixer] of state.entries()) replaceState(mixer, after[i]);
        return this.vocabulary.logits(lastOf(hidden, options.lengths));
      }),
    );
  }

  /** Reads a prompt: the state after it. See {@link prefill}. */
  prefill(prompt: Prompt, options: PrefillOptions = {}): Promise<PromptState> {
    return prefill(this, prompt, options);
  }

  /** The tokens that follow a prompt, as they are drawn. See {@link generate}. */
  generate(prompt: Prompt | PromptState, options: GenerateOptions = {}): AsyncGenerator<GenerateStep, void, undefined> {
    return generate(this, prompt, options);
  }

  /** The lambda of every differential mixer that has one. */
  lambdas(): LayerLambda[] {
    const { sublayers, mixers } = this.backbone;
    return noGrad(() =>
      mixers.flatMap((mixer, layer) => {
        if (!hasLambda(mixer)) return [];
        const name = `backbone.layers.${sublayers.findIndex((sublayer) => sublayer.layer === mixer)}`;
        return [{ layer, name, value: scope(() => mixer.lambda().mean()) }];
      }),
    );
  }

  /**
   * Rows of token numbers, of one length, as a (B, L) i32 tensor; a flat list of numbers is one row.
   * @throws ValueError naming a token that is outside the vocabulary or no whole number, or rows that differ in length
   */
  tokens(given: readonly ArrayLike<number>[] | ArrayLike<number>): Tensor {
    const rows: readonly ArrayLike<number>[] = isRows(given) ? given : [given];
    const length = rows[0]?.length ?? 0;
    const flat = new Int32Array(rows.length * length);
    const { vocabSize } = this.config;
    for (const [i, row] of rows.entries()) {
      if (row.length !== length) {
        throw new ValueError(`tokens: row ${i} has ${row.length} tokens, row 0 has ${length}; pad them to one length.`);
      }
      for (let j = 0; j < length; j++) {
        const token = row[j];
        if (!Number.isInteger(token) || token < 0 || token >= vocabSize) {
          throw new ValueError(`tokens: ${token} at position ${j} of row ${i} is not one of the ${vocabSize} tokens.`);
        }
        flat[i * length + j] = token;
      }
    }
    return this.device.from(flat, [rows.length, length], "i32");
  }

  override dispose(): void {
    super.dispose();
    this.clock.step.dispose();
  }
}

function isRows(given: readonly ArrayLike<number>[] | ArrayLike<number>): given is readonly ArrayLike<number>[] {
  return given.length > 0 && typeof given[0] === "object";
}

/** True for a differential mixer with a lambda: not for Diff-S6 of Mamba-1, nor for the control without one. */
function hasLambda(mixer: Mixer): mixer is Mixer & { lambda(): Tensor } {
  if (mixer instanceof DiffMamba) return true;
  const maybe = mixer instanceof DiffMamba2 || mixer instanceof DiffMamba2E || mixer instanceof DiffS6Mamba2;
  return maybe && mixer.lambdaQ1 !== undefined;
}

/** (B, L, D) -> (B, D): each row's last token, at lengths - 1 where given. */
function lastOf(hidden: Tensor, lengths: Tensor | undefined): Tensor {
  const [batch, length, width] = hidden.shape;
  if (lengths === undefined) return hidden.slice(1, length - 1).reshape(batch, width);
  const rows = hidden.device.arange(batch).mul(length).add(lengths).sub(1);
  return hidden.reshape(batch * length, width).gather(rows);
}
