// Embedding and head: tokens to vectors and back, with plain tables.
// Knows tables and losses. Knows no backbone and no file.

import { Build, Dropout, init, Module, type Parameter } from "@diffmamba/nn";
import { type CrossEntropyOptions, linear, linearCrossEntropy, linearInto, type Tensor } from "@diffmamba/tensor";
import type { ModelConfig } from "./config.js";

/** Both ends of a language model. */
export abstract class Vocabulary extends Module {
  /** Tokens (B, L) i32 -> (B, L, D), after the embedding's dropout, not yet scaled. */
  abstract embed(tokens: Tensor): Tensor;
  /** (..., D) -> (..., V): logits, up to a constant per row. */
  abstract logits(hidden: Tensor): Tensor;
  /** {@link logits} of (B, D) into (B, V), outside a tape, in the type of `out`: f32 or f64, whatever the model computes in. */
  logitsInto(hidden: Tensor, out: Tensor): void {
    out.assign(this.logits(hidden));
  }
  /** (B, L, D) and targets (B, L) i32 -> nats; targets of -100 do not count. */
  abstract loss(hidden: Tensor, targets: Tensor, options?: Pick<CrossEntropyOptions, "reduction">): Tensor;
}

/** One table for the embedding; the same or another for the head. */
export class PlainVocabulary extends Vocabulary {
  /** (V, D) */
  readonly embeddings: Parameter;
  /** (V, D); the embedding itself where they are tied. */
  readonly head: Parameter;
  readonly dropout: Dropout;

  constructor(config: ModelConfig, build = new Build()) {
    super();
    const { vocabSize, dModel, tieEmbeddings, initializerRange } = config;
    const shape = [vocabSize, dModel];
    const table = "backbone.embeddings.weight";
    this.embeddings = this.register(table, build.parameter(table, shape, init.normal(initializerRange)));
    this.head = tieEmbeddings
      ? this.embeddings
      : this.register("lm_head.weight", build.parameter("lm_head.weight", shape, init.fanIn(dModel)));
    this.dropout = this.register("drop", new Dropout(config.embeddingDropout, build.at("drop")));
  }

  override embed(tokens: Tensor): Tensor {
    return this.dropout.forward(this.embeddings.compute.gather(tokens));
  }

  override logits(hidden: Tensor): Tensor {
    return linear(hidden, this.head.compute);
  }

  /** Sums of the product as they are: rounded to 16 bits, near logits would become equal. */
  override logitsInto(hidden: Tensor, out: Tensor): void {
    linearInto(hidden, this.head.compute, out);
  }

  override loss(hidden: Tensor, targets: Tensor, options: Pick<CrossEntropyOptions, "reduction"> = {}): Tensor {
    return linearCrossEntropy(hidden, this.head.compute, targets, options);
  }
}
