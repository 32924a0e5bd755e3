// The common layers: Linear, Embedding, RMSNorm, LayerNorm, Dropout, and the GELU feed-forward.
// Knows parameters and ops. Knows no mixer, no model and no optimizer.

import { dropout, layerNorm, linear, rmsNorm, type Tensor } from "@diffmamba/tensor";
import { Build } from "./build.js";
import { fanIn, type Initializer, normal, ones, zeros } from "./init.js";
import { Module } from "./module.js";
import type { Parameter } from "./parameter.js";

export interface LinearOptions {
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** true by default. */
  readonly bias?: boolean;
  /** U(+-1/sqrt(inFeatures)) by default. */
  readonly init?: Initializer;
  readonly biasInit?: Initializer;
  /** Keep the bias in f32 where weights are bf16 or f16; false by default. */
  readonly wideBias?: boolean;
  /** The weight is folded into another by whoever made the layer: under mixed precision it has no copy. false by default. */
  readonly folded?: boolean;
}

/** x W^T + b: (..., inFeatures) -> (..., outFeatures). */
export class Linear extends Module {
  /** (outFeatures, inFeatures) */
  readonly weight: Parameter;
  /** (outFeatures,) */
  readonly bias: Parameter | undefined;

  constructor(options: LinearOptions, build = new Build()) {
    super();
    const { inFeatures, outFeatures, bias = true, init, biasInit, wideBias = false, folded = false } = options;
    const initial = fanIn(inFeatures);
    const shape = [outFeatures, inFeatures];
    this.weight = this.register("weight", build.parameter("weight", shape, init ?? initial, !folded));
    const makeBias = (): Parameter => {
      const args = ["bias", [outFeatures], biasInit ?? initial] as const;
      return wideBias ? build.dynamics(...args) : build.parameter(...args);
    };
    this.bias = bias ? this.register("bias", makeBias()) : undefined;
  }

  forward(x: Tensor): Tensor {
    const bias = this.bias?.compute;
    // A bias that is wider than what is computed in makes the result as wide.
    if (bias !== undefined && bias.dtype !== x.dtype) return linear(x, this.weight.compute).add(bias);
    return linear(x, this.weight.compute, bias);
  }
}

export interface EmbeddingOptions {
  readonly count: number;
  readonly dim: number;
  /** N(0, 0.02^2) by default. */
  readonly init?: Initializer;
}

/** Rows of a table: i32 indices (...) -> (..., dim). */
export class Embedding extends Module {
  /** (count, dim) */
  readonly weight: Parameter;

  constructor({ count, dim, init = normal(0.02) }: EmbeddingOptions, build = new Build()) {
    super();
    this.weight = this.register("weight", build.parameter("weight", [count, dim], init));
  }

  forward(index: Tensor): Tensor {
    return this.weight.compute.gather(index);
  }
}

export interface NormOptions {
  readonly dim: number;
  /** 1e-5 by default. */
  readonly eps?: number;
  /** As of {@link LinearOptions}. */
  readonly folded?: boolean;
}

/** RMSNorm over the last axis, with a learned weight: (..., dim) -> (..., dim). */
export class RMSNorm extends Module {
  readonly weight: Parameter;
  readonly eps: number;

  constructor({ dim, eps = 1e-5, folded = false }: NormOptions, build = new Build()) {
    super();
    this.weight = this.register("weight", build.parameter("weight", [dim], ones, !folded));
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight.compute, { eps: this.eps });
  }
}

/** LayerNorm over the last axis, with a learned weight and bias: (..., dim) -> (..., dim). */
export class LayerNorm extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly eps: number;

  constructor({ dim, eps = 1e-5 }: NormOptions, build = new Build()) {
    super();
    this.weight = this.register("weight", build.parameter("weight", [dim], ones));
    this.bias = this.register("bias", build.parameter("bias", [dim], zeros));
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight.compute, { bias: this.bias.compute, eps: this.eps });
  }
}

/** In training, zeroes each element with probability `p` and scales the rest by 1 / (1 - p). */
export class Dropout extends Module {
  readonly #build: Build;

  constructor(
    readonly p: number,
    build = new Build(),
  ) {
    super();
    if (!(p >= 0 && p < 1)) throw new RangeError(`Dropout: ${p} is no rate; it must be at least 0 and below 1.`);
    this.#build = build;
  }

  forward(x: Tensor): Tensor {
    if (!this.training || this.p === 0) return x;
    const { seed, path, clock } = this.#build;
    return dropout(x, this.p, { seed, stream: `dropout ${path}`, step: clock.step });
  }
}

/**
 * GELU by its definition: x Phi(x) (Hendrycks and Gimpel 2016), not the tanh approximation. In f32 where x is half as wide: 1 + erf
 * nearly cancels for negative x.
 */
export function gelu(x: Tensor): Tensor {
  const wide = x.cast(x.dtype === "f64" ? "f64" : "f32");
  return wide.mul(wide.mul(Math.SQRT1_2).erf().add(1)).mul(0.5).cast(x.dtype);
}

export interface FeedForwardOptions {
  readonly dModel: number;
  /** 4 dModel by default. */
  readonly dHidden?: number;
  /** Between the two layers; 0 by default. */
  readonly dropout?: number;
}

/** Linear, GELU, dropout, Linear: (..., dModel) -> (..., dModel). */
export class FeedForward extends Module {
  readonly up: Linear;
  readonly down: Linear;
  readonly dropout: Dropout;

  constructor({ dModel, dHidden = 4 * dModel, dropout: p = 0 }: FeedForwardOptions, build = new Build()) {
    super();
    this.up = this.register("ff.0.0", new Linear({ inFeatures: dModel, outFeatures: dHidden }, build.at("ff.0.0")));
    this.dropout = this.register("ff.1", new Dropout(p, build.at("ff.1")));
    this.down = this.register("ff.2", new Linear({ inFeatures: dHidden, outFeatures: dModel }, build.at("ff.2")));
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(this.dropout.forward(gelu(this.up.forward(x))));
  }
}
