// AdamW over parameter groups, and what is decayed. Moments live on the device; the learning rate is written there each
// step, and the count of steps lives there too, so that a step whose gradients are not finite changes nothing at all.
// Knows parameters and the adamw routine. Knows no schedule, no model and no file.

import { adamw, globalNorm, keep, noGrad, scope, type Tensor, type TypedArray } from "@diffmamba/tensor";
import type { Module } from "./module.js";
import type { Parameter } from "./parameter.js";

/** Parameters that share their decay and learning rate. */
export interface ParameterGroup {
  readonly parameters: readonly Parameter[];
  /** Decoupled weight decay. */
  readonly weightDecay: number;
  /** Factor on the learning rate; 1 by default. */
  readonly lrScale?: number;
}

/**
 * Which parameters are decayed, by the last part of their names:
 * - "mamba": not biases, norms, A_log, D, dt_bias (what mamba_ssm marks, and the usual choice);
 * - "backbone": as the paper's language models: not biases, A_log, D and LayerNorm's parameters, but RMSNorm weights and
 *   lambda are; everything outside the backbone (embeddings, softmax biases) is;
 * - "trainer": as the Hugging Face trainer of the 370M models: not biases and the norms of blocks; A_log, D, lambda and
 *   subln are;
 * - "all" and "none".
 */
export type DecayRule = "mamba" | "backbone" | "trainer" | "all" | "none";

function isDecayed(rule: DecayRule, path: string, isLayerNorm: boolean): boolean {
  const bias = /(^|\.|_)bias(es\.\d+)?$/.test(path);
  const dynamics = /(^|\.)(A\d?_log|D\d?|init_states)$/.test(path);
  const norm = isLayerNorm || /(^|\.)(norm|norm_f|subln)\.weight$/.test(path);
  switch (rule) {
    case "all":
      return true;
    case "none":
      return false;
    case "mamba":
      return !bias && !dynamics && !norm;
    case "backbone":
      return !/(^|\.)layers\./.test(path) || !(bias || dynamics || isLayerNorm);
    case "trainer":
      return !bias && !isLayerNorm && !/(^|\.)(norm|norm_f)\.weight$/.test(path);
  }
}

/** Paths of a module's LayerNorm parameters: a norm weight that has a bias beside it. */
function layerNormPaths(names: ReadonlyMap<string, Parameter>): Set<string> {
  const found = new Set<string>();
  for (const path of names.keys()) {
    const stem = path.match(/^(.*norm)\.weight$/)?.[1];
    if (stem !== undefined && names.has(`${stem}.bias`)) found.add(path).add(`${stem}.bias`);
  }
  return found;
}

export interface WeightDecayOptions {
  /** Decay the tables of embeddings where the rule does, as the paper's runs do (true, the default), or never. */
  readonly embeddings?: boolean;
}

const isEmbedding = (path: string): boolean => /(^|\.)(embeddings?|emb_layers\.\d+)\.weight$/.test(path);

/** A module's parameters in two groups, decayed and not. */
export function decayGroups(
  module: Module,
  weightDecay: number,
  rule: DecayRule = "mamba",
  { embeddings = true }: WeightDecayOptions = {},
): ParameterGroup[] {
  const names = module.namedParameters();
  const layerNorms = layerNormPaths(names);
  const decayed: Parameter[] = [];
  const rest: Parameter[] = [];
  for (const [path, parameter] of names) {
    const own = isDecayed(rule, path, layerNorms.has(path)) && (embeddings || !isEmbedding(path));
    (own ? decayed : rest).push(parameter);
  }
  return [
    { parameters: decayed, weightDecay },
    { parameters: rest, weightDecay: 0 },
  ].filter(({ parameters }) => parameters.length > 0);
}

export interface AdamWSettings {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
}

/** One group's state on the device. */
interface GroupState {
  readonly group: ParameterGroup;
  readonly m: Tensor[];
  readonly v: Tensor[];
  readonly lr: Tensor;
  readonly step: Tensor;
}

export interface StepOptions {
  /** By default the rate that {@link AdamW.setRate} has set: a recorded step has it in a tensor. */
  readonly lr?: number;
  /** Gradients are scaled so that their global norm is at most this; no limit by default. */
  readonly maxNorm?: number;
  /** () f32: what the loss was multiplied by, so that gradients of f16 do not vanish; they are divided by it. */
  readonly lossScale?: Tensor;
}

/** Moments and step counts, as a checkpoint keeps them. */
export interface AdamWState {
  /** Steps done, per group. */
  readonly steps: readonly number[];
  readonly m: ReadonlyMap<Parameter, TypedArray>;
  readonly v: ReadonlyMap<Parameter, TypedArray>;
}

export class AdamW {
  /** All parameters, in the order in which `step` takes gradients. */
  readonly parameters: readonly Parameter[];
  readonly #groups: readonly GroupState[];
  readonly #betas: readonly [number, number];
  readonly #eps: number;

  /** Moments start at zero. Defaults: betas (0.9, 0.999), eps 1e-8. */
  constructor(groups: readonly ParameterGroup[], { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 }: AdamWSettings = {}) {
    this.parameters = groups.flatMap((group) => [...group.parameters]);
    if (this.parameters.length === 0) throw new RangeError("AdamW: there are no parameters.");
    if (new Set(this.parameters).size !== this.parameters.length) {
      throw new RangeError("AdamW: a parameter is in two groups.");
    }
    for (const [name, beta] of Object.entries({ beta1, beta2 })) {
      if (!(beta >= 0 && beta < 1))
        throw new RangeError(`AdamW: ${name} is ${beta}; it must be at least 0 and below 1.`);
    }
    this.#betas = [beta1, beta2];
    this.#eps = eps;
    this.#groups = groups.map((group) => {
      const { device } = group.parameters[0];
      const moments = () => group.parameters.map((p) => keep(device.zeros(p.shape, p.dtype)));
      return { group, m: moments(), v: moments(), lr: keep(device.zeros([])), step: keep(device.zeros([], "i32")) };
    });
  }

  /** The learning rate of the steps from here on, as a tensor on the device. */
  setRate(lr: number): void {
    for (const { group, lr: rate } of this.#groups) rate.fillInPlace(lr * (group.lrScale ?? 1));
  }

  /**
   * One step with the gradients of what the {@link parameters} compute with, in their order. Masters and their copies change.
   * @returns their global norm before clipping, a () tensor; where it is not finite nothing was changed
   */
  step(gradients: readonly Tensor[], { lr, maxNorm = Number.POSITIVE_INFINITY, lossScale }: StepOptions): Tensor {
    if (lr !== undefined) this.setRate(lr);
    return noGrad(() =>
      scope(() => {
        const scaled = globalNorm(gradients);
        const norm = lossScale === undefined ? scaled : scaled.div(lossScale);
        // min(1, maxNorm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does
        const clip = Number.isFinite(maxNorm)
          ? norm.add(1e-6).reciprocal().mul(maxNorm).minimum(1)
          : norm.device.ones([], norm.dtype);
        const scale = lossScale === undefined ? clip : clip.div(lossScale);
        let at = 0;
        for (const { group, m, v, lr: rate, step } of this.#groups) {
          const { parameters, weightDecay } = group;
          const grads = gradients.slice(at, at + parameters.length);
          at += parameters.length;
          const [beta1, beta2] = this.#betas;
          adamw(
            {
              ...{ params: parameters, grads, m, v, lr: rate, step, scale, norm },
              copies: parameters.map((parameter) => parameter.copy),
            },
            { beta1, beta2, eps: this.#eps, weightDecay: parameters.map(() => weightDecay) },
          );
        }
        return norm;
      }),
    );
  }

  /** Everything that a later run needs to go on as if it had never stopped. */
  async state(): Promise<AdamWState> {
    const m = new Map<Parameter, TypedArray>();
    const v = new Map<Parameter, TypedArray>();
    const steps: number[] = [];
    for (const { group, m: first, v: second, step } of this.#groups) {
      for (const [i, parameter] of group.parameters.entries()) {
        m.set(parameter, await first[i].hostData());
        v.set(parameter, await second[i].hostData());
      }
      steps.push(await step.item());
    }
    return { steps, m, v };
  }

  /** The inverse of {@link state}. @throws Error where a parameter's moments are missing */
  restore({ steps, m, v }: AdamWState): void {
    for (const [i, { group, m: first, v: second, step }] of this.#groups.entries()) {
      for (const [j, parameter] of group.parameters.entries()) {
        const [mean, variance] = [m.get(parameter), v.get(parameter)];
        if (mean === undefined || variance === undefined || steps[i] === undefined) {
          throw new Error(`AdamW: the state has no moments for parameter ${j} of group ${i}.`);
        }
        first[j].write(mean);
        second[j].write(variance);
      }
      step.fillInPlace(steps[i]);
    }
  }

  /** Frees the moments; the parameters stay. */
  dispose(): void {
    for (const { m, v, lr, step } of this.#groups) for (const x of [...m, ...v, lr, step]) x.dispose();
  }
}
