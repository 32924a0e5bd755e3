// The adaptive embedding and softmax (Grave et al. 2017; Baevski and Auli 2019) of the paper's small models: frequent
// tokens in a short list, the rest in clusters of narrower vectors, each reached through one more logit of the head.
// As released, cluster i is reached through the head's i-th column from its end, the head's projection begins with zeros, and
// where the vocabulary ends inside the short list the logits of the clusters remain in the softmax, never as a target. The
// configuration can switch each of these off.
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
import type { AdaptiveConfig, ModelConfig } from "./config.js";
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
  readonly embeddingDropout: Dropout;
  readonly headDropout: Dropout;
}

const noClusters: AdaptiveConfig = { cutoffs: [], divValue: 1 };

export class AdaptiveVocabulary extends Vocabulary {
  readonly clusters: readonly Cluster[];
  /** (ways, D) and (ways,): the logits that lead to the clusters; none where there are no ways. */
  readonly clusterWeight: Parameter | undefined;
  readonly clusterBias: Parameter | undefined;
  /** (D, D), where widths differ: the head's own projection. */
  readonly headProjection: Parameter | undefined;
  /** Logits that lead to clusters, those to empty ones included where they are kept. */
  readonly #ways: number;
  readonly #reversed: boolean;

  constructor(config: ModelConfig, build = new Build()) {
    super();
    const { vocabSize, dModel, adaptive, initializerRange } = config;
    const { cutoffs, divValue, reversed = true, zeroHead = true, emptyClusters = true } = adaptive ?? noClusters;
    const own = (name: string, shape: readonly number[], initial: Initializer) =>
      this.register(name, build.parameter(name, shape, initial));
    const drop = (name: string, p: number) => this.register(name, new Dropout(p, build.at(name)));
    const bounds = [0, ...cutoffs.filter((n) => n < vocabSize), vocabSize];
    this.#ways = emptyClusters ? cutoffs.length : bounds.length - 2;
    this.#reversed = reversed;
    this.clusters = bounds.slice(0, -1).map((start, i): Cluster => {
      const end = bounds[i + 1];
      const width = Math.floor(dModel / divValue ** i);
      // 0.5 / sqrt(width) where initializerRange is 0.5 / sqrt(D), as released; the projections as the widest table
      const std = initializerRange * Math.sqrt(dModel / width);
      return {
        start,
        end,
        table: own(`encoder.0.emb_layers.${i}.weight`, [end - start, width], init.normal(std)),
        bias: own(`loss.out_layers_biases.${i}`, [end - start], init.fanIn(dModel)),
        projection:
          divValue > 1 ? own(`encoder.0.emb_projs.${i}`, [dModel, width], init.normal(initializerRange)) : undefined,
        embeddingDropout: drop(`encoder.0.drop.${i}`, config.embeddingDropout),
        headDropout: drop(`loss.drop.${i}`, config.headDropout),
      };
    });
    if (this.#ways > 0) {
      this.clusterWeight = own("loss.cluster_weight", [this.#ways, dModel], init.zeros);
      this.clusterBias = own("loss.cluster_bias", [this.#ways], init.zeros);
    }
    const headInit = zeroHead ? init.zeros : init.normal(initializerRange);
    this.headProjection = divValue > 1 ? own("loss.out_projs.0", [dModel, dModel], headInit) : undefined;
  }

  override embed(tokens: Tensor): Tensor {
    const parts = this.clusters.map((cluster) => {
      const inside = this.#within(tokens, cluster);
      // Tokens of other clusters look up row 0, and are multiplied by 0.
      const index = inside.where(tokens.sub(cluster.start), tokens.device.zeros([], "i32"));
      const vectors = cluster.embeddingDropout.forward(cluster.table.compute.gather(index));
      const projected = cluster.projection === undefined ? vectors : linear(vectors, cluster.projection.compute);
      if (this.clusters.length === 1) return projected;
      return projected.mul(inside.cast(projected.dtype).reshape(...tokens.shape, 1));
    });
    return parts.reduce((sum, part) => sum.add(part));
  }

  /**
   * u8: which numbers are a cluster's. What is outside of the vocabulary belongs to the first or the last cluster, where
   * the lookup refuses it.
   */
  #within(tokens: Tensor, { start }: Cluster): Tensor {
    const next = this.clusters.find((other) => other.start > start)?.start;
    const below = next === undefined ? undefined : tokens.less(next);
    const above = start === 0 ? undefined : tokens.less(start).equal(0);
    if (below !== undefined && above !== undefined) return below.mul(above);
    return below ?? above ?? tokens.equal(tokens);
  }

  /** Logits over the short list and then the ways to the clusters: (..., shortList + clusters). */
  #headLogits(hidden: Tensor): Tensor {
    const [{ table, bias, headDropout }] = this.clusters;
    const projected = project(hidden, this.headProjection, headDropout);
    const list = linear(projected, table.compute, bias.compute);
    if (this.clusterWeight === undefined || this.clusterBias === undefined) return list;
    return concat([list, linear(projected, this.clusterWeight.compute, this.clusterBias.compute)]);
  }

  /** Column of the head that leads to tail `i`, counted from 0. */
  #way(i: number): number {
    return this.clusters[0].end + (this.#reversed ? this.#ways - (i + 1) : i);
  }

  override logits(hidden: Tensor): Tensor {
    const head = this.#headLogits(hidden);
    const [first, ...tails] = this.clusters;
    const list = head.slice(-1, 0, first.end);
    if (tails.length === 0) return list;
    const parts = tails.map((cluster, i) => {
      const tail = tailLogits(hidden, cluster);
      const total = logSumExp(tail).cast(tail.dtype);
      const way = head.slice(-1, this.#way(i), this.#way(i) + 1);
      return tail.add(way).sub(total.reshape(...total.shape, 1));
    });
    return concat([list, ...parts]);
  }

  override loss(hidden: Tensor, targets: Tensor, options: Pick<CrossEntropyOptions, "reduction"> = {}): Tensor {
    const { reduction = "mean" } = options;
    const constant = (value: number) => targets.device.full([], value, "i32");
    const [first, ...tails] = this.clusters;
    // Beyond the short list is a way to a cluster, or nothing that the head has.
    let headTargets = targets.less(first.end).where(targets, constant(first.end + this.#ways));
    let tailLosses: Tensor | undefined;
    for (const [i, cluster] of tails.entries()) {
      const inside = this.#within(targets, cluster);
      headTargets = inside.where(constant(this.#way(i)), headTargets);
      const own = inside.where(targets.sub(cluster.start), constant(IGNORE_INDEX));
      const losses = softmaxCrossEntropy(tailLogits(hidden, cluster), own, { reduction: "none" });
      tailLosses = tailLosses === undefined ? losses : tailLosses.add(losses);
    }
    const headLosses = softmaxCrossEntropy(this.#headLogits(hidden), headTargets, { reduction: "none" });
    const all = tailLosses === undefined ? headLosses : headLosses.add(tailLosses);
    if (reduction === "none") return all;
    if (reduction === "sum") return all.sum();
    const ignored = targets.equal(IGNORE_INDEX).cast(all.dtype).sum();
    return all.sum().div(ignored.neg().add(targets.size).maximum(1));
  }
}

function tailLogits(hidden: Tensor, { table, bias, projection, headDropout }: Cluster): Tensor {
  return linear(project(hidden, projection, headDropout), table.compute, bias.compute);
}

function project(hidden: Tensor, projection: Parameter | undefined, dropout: Dropout): Tensor {
  return projection === undefined ? hidden : dropout.forward(hidden.matmul(projection.compute));
}
