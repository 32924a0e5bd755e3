// Layer: train. What the trainer needs of a model: a loss, a clock for dropout, its lambdas, and a way into a folder.
// Knows modules. Knows no kind of model; `MambaLM` of @diffmamba/models is one.

import type { FileSystem } from "@diffmamba/files";
import type { Clock, Module } from "@diffmamba/nn";
import type { Tensor } from "@diffmamba/tensor";

/** The lambda of one differential layer: how much of the second branch is subtracted. */
export interface Lambda {
  /** The mixer, counted from 0. */
  readonly layer: number;
  /** () f32 */
  readonly value: Tensor;
}

/** A module that can be trained as a language model. */
export type TrainableModel = Module & {
  /** The step by which dropout draws; the trainer sets it before each micro-batch. */
  readonly clock: Clock;
  /**
   * tokens, targets: (B, L) i32 -> () mean loss in nats a token. seqIdx: (B, L) i32, where rows are packed documents: state starts anew
   * where it rises. A model that is never given packed batches need not know it.
   */
  loss(tokens: Tensor, targets: Tensor, options?: { readonly seqIdx?: Tensor }): Tensor;
  /** One entry for each differential layer; none for other models. */
  lambdas(): readonly Lambda[];
  /** Writes `config.json` and `model.safetensors`, under published names and in the parameters' own types, to a folder that exists. */
  save(files: FileSystem, folder: string): Promise<void>;
};
