// The adaptive embedding and softmax (Grave et al. 2017; Baevski and Auli 2019) of the paper's small models: frequent
// tokens in a short list, the rest in clusters of narrower vectors, each reached through one more logit of the head.
// Cluster i is reached through the head's i-th column from its end. Where the vocabulary ends inside the short list the
// logits of the clusters remain in the softmax, never as a target, as in the released models for text8 and enwik8.
// Knows tables and losses. Knows no backbone and no file.

import { Build, Dropout, type Initializer, init, type Parameter } from "@diffmamba/nn";
import {
  type CrossEntropyOptions,
  concat,
  IGNORE_INDEX,
  linear,
  logSumExp,
  softmaxCrossEntropy,
  type Tensor,
} from "@diffmamba/tensor";
import type { ModelConfig } from "./config.js";
import { Vocabulary } from "./heads.js";

/** One cluster of tokens [start, end); the first is the short list. */
interface Cluster {
  readonly start: number;
  readonly end: number;
  /** (end - start, width): rows of both the embedding and the softmax. */
  readonly table: Parameter;
  /** (end - start,) */
  readonly bias: Parameter;
  /** (D, width); none where all widths are D. */
  readonly projection: Parameter | undefined;
}

export class AdaptiveVocabulary extends Vocabulary {
  readonly clusters: readonly Cluster[];
  /** (clusters - 1, D) and their biases: the logits that lead to the clusters. */
  readonly clusterWeight: Parameter;
  readonly clusterBias: Parameter;
  /** (D, D), where widths differ: the head's own projection, zero at the start. */
  readonly headProjection: Parameter | undefined;
  readonly dropout: Dropout;
  readonly #count: number;

  constructor(config: ModelConfig, build = new Build()) {
    super();
    const { vocabSize, dModel, adaptive, initializerRange } = config;
    const { cutoffs, divValue } = adaptive ?? { cutoffs: [], divValue: 1 };
    const own = (name: string, shape: readonly number[], initial: Initializer) =>
      this.register(name, build.parameter(name, shape, initial));
    const bounds = [0, ...cutoffs.filter((n) => n < vocabSize), vocabSize];
    this.#count = cutoffs.length;
    this.clusters = bounds.slice(0, -1).map((start, i): Cluster => {
      const size = bounds[i + 1] - start;
      const width = Math.floor(dModel / divValue ** i);
      const std = initializerRange * Math.sqrt(dModel / width);
      return {
        start,
        end: bounds[i + 1],
        table: own(`encoder.0.emb_layers.${i}.weight`, [size, width], init.normal(std)),
        bias: own(`loss.out_layers_biases.${i}`, [size], init.fanIn(dModel)),
        projection:
          divValue > 1 ? own(`encoder.0.emb_projs.${i}`, [dModel, width], init.normal(dModel ** -0.5)) : undefined,
      };
    });
    this.clusterWeight = own("loss.cluster_weight", [cutoffs.length, dModel], init.zeros);
    this.clusterBias = own("loss.cluster_bias", [cutoffs.length], init.zeros);
    this.headProjection = divValue > 1 ? own("loss.out_projs.0", [dModel, dModel], init.zeros) : undefined;
    this.dropout = this.register("loss.dropout", new Dropout(config.headDropout, build.at("loss.dropout")));
  }

  override embed(tokens: Tensor): Tensor {
    const parts = this.clusters.map(({ start, end, table, projection }) => {
      // Tokens of other clusters look up row 0, and are multiplied by 0.
      const inside = within(tokens, start, end);
      const index = inside.where(tokens.sub(start), tokens.device.zeros([], "i32"));
      const vectors = table.gather(index);
      const projected = projection === undefined ? vectors : linear(vectors, projection);
      const mask = inside.cast(projected.dtype).reshape(...tokens.shape, 1);
      return this.clusters.length === 1 ? projected : projected.mul(mask);
    });
    return parts.reduce((sum, part) => sum.add(part));
  }

  /** Logits over the short list and then the ways to the clusters: (..., shortList + clusters). */
  #headLogits(hidden: Tensor): Tensor {
    const [{ table, bias }] = this.clusters;
    const projected = this.#project(hidden, this.headProjection);
    const list = linear(projected, table).add(bias);
    if (this.#count === 0) return list;
    return concat([list, linear(projected, this.clusterWeight).add(this.clusterBias)]);
  }

  #tailLogits(hidden: Tensor, { table, bias, projection }: Cluster): Tensor {
    return linear(this.#project(hidden, projection), table).add(bias);
  }

  #project(hidden: Tensor, projection: Parameter | undefined): Tensor {
    return projection === undefined ? hidden : this.dropout.forward(hidden.matmul(projection));
  }

  override logits(hidden: Tensor): Tensor {
    const head = this.#headLogits(hidden);
    const [first, ...tails] = this.clusters;
    const list = head.slice(-1, 0, first.end);
    if (tails.length === 0) return list;
    const parts = tails.map((cluster, i) => {
      const tail = this.#tailLogits(hidden, cluster);
      const way = head.dim(-1) - (i + 1);
      const total = logSumExp(tail);
      return tail.add(head.slice(-1, way, way + 1)).sub(total.reshape(...total.shape, 1));
    });
    return concat([list, ...parts]);
  }

  override loss(hidden: Tensor, targets: Tensor, { reduction = "mean" }: CrossEntropyOptions = {}): Tensor {
    const constant = (value: number) => targets.device.full([], value, "i32");
    const [first, ...tails] = this.clusters;
    const head = this.#headLogits(hidden);
    let headTargets = targets;
    let losses: Tensor | undefined;
    for (const [i, cluster] of tails.entries()) {
      const inside = within(targets, cluster.start, cluster.end);
      headTargets = inside.where(constant(first.end + this.#count - (i + 1)), headTargets);
      const own = inside.where(targets.sub(cluster.start), constant(IGNORE_INDEX));
      const tail = softmaxCrossEntropy(this.#tailLogits(hidden, cluster), own, { reduction: "none" });
      losses = losses === undefined ? tail : losses.add(tail);
    }
    const list = softmaxCrossEntropy(head, headTargets, { reduction: "none" });
    const all = losses === undefined ? list : list.add(losses);
    if (reduction === "none") return all;
    if (reduction === "sum") return all.sum();
    const ignored = targets.equal(IGNORE_INDEX).cast(all.dtype).sum();
    return all.sum().div(ignored.neg().add(targets.size).maximum(1));
  }
}

/** u8: start <= tokens < end. */
function within(tokens: Tensor, start: number, end: number): Tensor {
  return tokens.less(end).mul(tokens.less(start).equal(0));
}
