// From a vanilla Mamba-2 language model to a differential one: whose rows, channels and heads the two branches get.
// Works on published tensors, which the fused form and the two-branch form of a mixer share.
// Knows names and shapes of checkpoints. Knows no file.

import { DiffMamba2, type LambdaMode } from "@diffmamba/differential";
import { convertArray, init, publishedShape } from "@diffmamba/nn";
import { RandomStream } from "@diffmamba/random";
import { type DType, type HostTensor, shapesOnly, sizeOf } from "@diffmamba/tensor";
import { type ModelConfig, modelConfig } from "./config.js";
import { ConfigError } from "./configChecks.js";
import type { TensorFile } from "./formats/tensorFile.js";
import { MambaLM } from "./model.js";
import { branchRanges, type HeadSizes, type Slicing, sliceEnds, takeRanges } from "./slicing.js";

export interface ConvertOptions {
  /** Which layers become differential; "alternate", as in the paper's 370M model, by default. */
  readonly pattern?: ModelConfig["pattern"];
  /** "semantic" by default. */
  readonly slicing?: Slicing;
  /** The configuration's by default. */
  readonly lambda?: LambdaMode;
  /** The configuration's by default. */
  readonly subln?: boolean;
  /** For lambda's parameters, which are drawn from N(0, 1); 0 by default. */
  readonly seed?: number;
}

export interface Converted {
  readonly config: ModelConfig;
  /** All tensors of the new model by their published names, each in the type of its parent. */
  readonly tensors: Map<string, HostTensor>;
}

/** Published tensors, in memory or in a file. */
export type TensorSource = ReadonlyMap<string, HostTensor> | TensorFile;

/** What is to be known of one differential layer. */
interface Layer {
  readonly lambdaInit: number;
  readonly branches: readonly [string, string];
}

interface Plan {
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** By the path of the layer's tensors, with its dot. */
  readonly layers: ReadonlyMap<string, Layer>;
}

/** Names and shapes of a model, and its differential layers, without its memory. */
async function planOf(config: ModelConfig): Promise<Plan> {
  const device = shapesOnly();
  try {
    const model = MambaLM.create(config, { device });
    const shapes = new Map(model.published().map((entry) => [entry.name, publishedShape(entry)]));
    const layers = new Map<string, Layer>();
    for (const [i, { layer, residual }] of model.backbone.sublayers.entries()) {
      if (!(layer instanceof DiffMamba2)) continue;
      const path = `backbone.layers.${i}.${residual === "pre" ? "" : "layer."}`;
      layers.set(path, { lambdaInit: layer.lambdaInit, branches: layer.branchNames });
    }
    return { shapes, layers };
  } finally {
    await device.dispose();
  }
}

/**
 * Makes a differential Mamba-2 model of a vanilla one. Every tensor outside the new layers is copied; lambda_q1 is drawn,
 * and the norm after the subtraction begins with ones. How the two branches come from their parent:
 *
 * "reference", as the released code does it: of each tensor whose shape differs, the first branch takes the first slice
 * and the second the last; those of equal shape go to both. As the parent's rows are [z | x | B | C | dt], the first
 * branch gets rows of z for its x and rows of x for its B, C and dt. It is nearly a new start.
 *
 * "semantic": of every head the first branch takes the first half of the channels (of z, x, the convolution, the gated
 * norm, the output projection W), the second the other half; B, C, dt, A and D of the head are the parent's in both. So
 * the two scans together are the parent's, channel by channel. With f = 1 - lambda_init without the norm after the
 * subtraction (subln), and f = 1 with it, the output projections are W1 = W[first halves] / f and
 * W2 = -W[other halves] / (lambda f), hence m1 - lambda m2 = W y / f for the parent's W y. What holds then:
 * - without a gated norm (rmsNorm false) and without subln, the new model computes what the parent does;
 * - with the gated norm each half of the channels is divided by its own root mean square instead of that of the whole:
 *   without subln the new model is the parent with its norm in two groups;
 * - with subln the layer's output is that, divided by its root mean square and multiplied by 1 - lambda_init.
 *
 * @throws ConfigError where the model is no vanilla Mamba-2 (the projections of a Mamba-1 mixer to B, C and dt read all
 * of its channels, so that halves of it are no mixers), has biases in its projections, or sizes that cannot be halved;
 * Error naming a tensor that is missing, unknown, or of another shape than the configuration says
 */
export async function convertToDifferential(
  source: TensorSource,
  parent: ModelConfig,
  options: ConvertOptions = {},
): Promise<Converted> {
  const {
    slicing = "semantic",
    seed = 0,
    pattern = "alternate",
    lambda = parent.lambda,
    subln = parent.subln,
  } = options;
  const from = await planOf(parent);
  if (parent.variant === "diffmamba2" && from.layers.size === 0) {
    // The pattern leaves no layer differential: vanilla by another name.
  } else if (parent.variant !== "mamba2") {
    throw new ConfigError(`variant: "${parent.variant}"; only a vanilla "mamba2" can be made differential.`);
  }
  if (parent.bias) throw new ConfigError("bias: true; a differential Mamba-2 mixer has no biases in its projections.");
  const config = modelConfig({ ...parent, variant: "diffmamba2", pattern, lambda, subln });
  const to = await planOf(config);
  const read = await reader(source, from.shapes);
  const sizes: HeadSizes = {
    heads: (config.expand * config.dModel) / config.headDim,
    headDim: config.headDim,
    shared: config.nGroups * config.dState,
  };

  /** An output projection's half, so scaled that the two halves give the parent's product. */
  const scaled = async (half: HostTensor, { branch, path, layer }: Part): Promise<HostTensor> => {
    const factor = subln ? 1 : 1 - layer.lambdaInit;
    const q1 = to.shapes.get(`${path}lambda_q1`);
    if (branch === 0 || q1 === undefined) return scaleRows(half, () => 1 / factor);
    const lambdas = lambdaOf(await make(`${path}lambda_q1`, q1), lambda, layer.lambdaInit);
    return scaleRows(half, (row) => -1 / (lambdas[row % lambdas.length] * factor));
  };
  const make = async (name: string, shape: readonly number[]): Promise<HostTensor> => {
    const origin = originOf(name, to.layers, parent.residual);
    if (origin === "parent") return read(name);
    const whole = await read(origin.parent);
    if (origin.own === "lambda_q1") return drawn(name, shape, whole.dtype, seed);
    if (origin.own === "subln.weight") return fromNumbers(new Float64Array(sizeOf(shape)).fill(1), shape, whole.dtype);
    if (slicing === "reference") return sliceEnds(whole, shape, origin.branch);
    const part = takeRanges(whole, branchRanges(origin.own, whole.shape, sizes, origin.branch));
    return origin.own === "out_proj.weight" ? scaled(part, origin) : part;
  };
  const tensors = new Map<string, HostTensor>();
  for (const [name, shape] of to.shapes) tensors.set(name, await make(name, shape));
  return { config, tensors };
}

/** A tensor of a differential layer. */
interface Part {
  readonly layer: Layer;
  /** The path of the layer's tensors, with its dot. */
  readonly path: string;
  /** The tensor's name in the branch, or in the layer. */
  readonly own: string;
  readonly branch: 0 | 1;
  /** What it is cut from or, where it is new, has its type from. */
  readonly parent: string;
}

/** Where a tensor of the new model comes from; "parent" for one that is copied. */
function originOf(
  name: string,
  layers: ReadonlyMap<string, Layer>,
  residual: ModelConfig["residual"],
): Part | "parent" {
  for (const [path, layer] of layers) {
    if (!name.startsWith(path)) continue;
    const own = name.slice(path.length);
    const mixer = residual === "pre" ? `${path}mixer.` : path;
    if (own === "lambda_q1") return { layer, path, own, branch: 0, parent: `${mixer}A_log` };
    if (own === "subln.weight") return { layer, path, own, branch: 0, parent: `${mixer}out_proj.weight` };
    for (const branch of [0, 1] as const) {
      const prefix = `${layer.branches[branch]}.`;
      if (!own.startsWith(prefix)) continue;
      const tensor = own.slice(prefix.length);
      return { layer, path, own: tensor, branch, parent: mixer + tensor };
    }
  }
  return "parent";
}

/** Checks all names and shapes, then reads by name. */
async function reader(
  source: TensorSource,
  shapes: ReadonlyMap<string, readonly number[]>,
): Promise<(name: string) => Promise<HostTensor>> {
  const isFile = "describe" in source;
  const names = isFile ? source.names : [...source.keys()];
  const unknown = names.find((name) => !shapes.has(name));
  if (unknown !== undefined) {
    throw new Error(`convert: the tensor ${unknown} is unknown to a model of this configuration.`);
  }
  for (const [name, shape] of shapes) {
    if (!source.has(name)) throw new Error(`convert: the tensor ${name} is missing.`);
    const found = isFile ? source.describe(name).shape : source.get(name)?.shape;
    if (`${found}` !== `${shape}`) {
      throw new Error(`convert: the tensor ${name} is (${found?.join(", ")}); its model has (${shape.join(", ")}).`);
    }
  }
  return async (name) => (isFile ? source.read(name) : (source.get(name) as HostTensor));
}

function fromNumbers(values: Float64Array, shape: readonly number[], dtype: DType): HostTensor {
  return { dtype, shape, data: convertArray(values, "f64", dtype) };
}

/** N(0, 1), as a new model's parameter of this name would be. */
function drawn(name: string, shape: readonly number[], dtype: DType, seed: number): HostTensor {
  const values = new Float64Array(sizeOf(shape));
  init.normal(1)(values, shape, new RandomStream(seed, name));
  return fromNumbers(values, shape, dtype);
}

/** lambda = sigmoid(s) + lambda_init: one, or one a channel. */
function lambdaOf({ data, dtype }: HostTensor, mode: LambdaMode, initial: number): Float64Array {
  const values = convertArray(data, dtype, "f64") as Float64Array;
  const sums = mode === "vecsum" ? Float64Array.of(values.reduce((sum, value) => sum + value, 0)) : values;
  return sums.map((s) => 1 / (1 + Math.exp(-s)) + initial);
}

/** Each row of a (rows, columns) tensor multiplied by its number. */
function scaleRows({ dtype, shape, data }: HostTensor, scaleOf: (row: number) => number): HostTensor {
  const values = convertArray(data, dtype, "f64") as Float64Array;
  const scaled = values.map((value, i) => value * scaleOf(Math.floor(i / shape[1])));
  return fromNumbers(scaled, shape, dtype);
}
