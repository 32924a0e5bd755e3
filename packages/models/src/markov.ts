// The one-layer Mamba-2 that predicts Markov chains of order 1 as well as anything can: its weights written down, not learned.
// Its state counts which symbol followed which, so that its logits are beta + n(current, next), and these, divided by their
// sum, the add-beta rule (Laplace's for beta = 1; Bondaschi et al. 2025, "From Markov to Laplace").
// Knows a model's parameters. Knows no data and no training.

import type { BuildOptions } from "@diffmamba/nn";
import { Mamba2 } from "@diffmamba/ssm";
import { scope, type Tensor, ValueError } from "@diffmamba/tensor";
import type { ModelConfig } from "./config.js";
import { PlainVocabulary } from "./heads.js";
import { MambaLM } from "./model.js";

/** silu(u) = 1: what passes through the mixer's activations as 1 enters them as this. */
const u = 1.278464542761074;

export interface MarkovCounterOptions extends Pick<BuildOptions, "device"> {
  /** f32 by default. */
  readonly dtype?: "f32" | "f64";
  /** S; 2 by default. */
  readonly symbols?: number;
  /** What each count begins with; 1 by default. */
  readonly beta?: number;
}

/**
 * The model. Symbol i is the unit vector at place 2i. The convolution gives the scan x and C of the current symbol and B of the one
 * before, so that with step 1 and decay 1 the state is the table of counts, and y the row of the current symbol; y_j goes
 * to place 2j + 1. Column 2i of the head is beta, for the current symbol whichever it is, column 2i + 1 the unit vector i.
 * The norms only scale each token's vector as a whole.
 * @throws ValueError for fewer than two symbols, or a beta that is not above 0
 */
export function markovCounter({ symbols = 2, beta = 1, ...build }: MarkovCounterOptions = {}): MambaLM {
  if (!(Number.isSafeInteger(symbols) && symbols >= 2))
    throw new ValueError(`markovCounter: symbols is ${symbols}; it must be a whole number of at least 2.`);
  if (!(beta > 0 && Number.isFinite(beta))) throw new ValueError(`markovCounter: beta is ${beta}; it must be above 0.`);
  const width = 2 * symbols;
  const config: Partial<ModelConfig> = {
    vocabSize: symbols,
    dModel: width,
    nLayers: 1,
    variant: "mamba2",
    dState: symbols,
    dConv: 2,
    expand: 1,
    headDim: width,
    rmsNorm: false,
    convBias: false,
    tieEmbeddings: false,
  };
  const model = MambaLM.create(config, { ...build, draw: false });
  try {
    fill(model, symbols, beta);
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

function fill(model: MambaLM, symbols: number, beta: number): void {
  const width = 2 * symbols;
  const { vocabulary, backbone, normF } = model;
  const [mixer] = backbone.mixers;
  if (!(vocabulary instanceof PlainVocabulary && mixer instanceof Mamba2))
    throw new Error("markovCounter: not this model");
  /** Fills a matrix of `columns` columns, entry by entry. */
  const write = (parameter: Tensor, columns: number, entry: (row: number, column: number) => number) => {
    const values = Array.from({ length: parameter.size }, (_, i) => entry(Math.floor(i / columns), i % columns));
    parameter.write(parameter.dtype === "f64" ? Float64Array.from(values) : Float32Array.from(values));
  };
  const all = (parameter: Tensor, value: number) => write(parameter, 1, () => value);
  for (const parameter of model.parameters()) all(parameter, 0);
  all(backbone.sublayers[0].norm.weight, 1);
  if (normF !== undefined) all(normF.weight, 1);
  write(vocabulary.embeddings, width, (symbol, place) => (place === 2 * symbol ? 1 : 0));
  write(vocabulary.head, width, (symbol, place) => (place % 2 === 0 ? beta : place === 2 * symbol + 1 ? 1 : 0));
  // The norm before the mixer gives the unit vector this length.
  const scale = 1 / Math.sqrt(1 / width + backbone.sublayers[0].norm.eps);
  const { inProj, conv1d, outProj, aLog, dtBias } = mixer;
  // Rows z, x (2S each), B, C (S each), dt (1). The gate z is open for every symbol; x, B and C are the symbol itself.
  const rows = [2 * width, 2 * width + symbols];
  write(inProj.weight, width, (row, place) => {
    if (place % 2 === 1) return 0;
    if (row < width) return u / scale;
    const own = row < rows[0] ? row - width : row < rows[1] ? row - rows[0] : row - rows[1];
    return own === place / 2 && row < rows[1] + symbols ? 1 / scale : 0;
  });
  // Taps: the symbol before, the current one. Channels x, B, C.
  write(conv1d.weight, 2, (channel, tap) => {
    const isB = channel >= width && channel < width + symbols;
    return tap === (isB ? 0 : 1) ? u : 0;
  });
  // softplus(ln(e - 1)) = 1, and a decay of exp(-exp(-100)) = 1.
  all(dtBias, Math.log(Math.E - 1));
  all(aLog, -100);
  write(outProj.weight, width, (place, channel) => (place === 2 * channel + 1 ? 1 : 0));
}

/** Tokens (B, L) i32 -> probabilities (B, L, V): logits divided by their sum, as a {@link markovCounter} wants them, not their softmax. */
export function countProbabilities(model: MambaLM, tokens: Tensor): Tensor {
  return scope(() => {
    const counts = model.forward(tokens);
    return counts.div(counts.sum(-1).reshape(...tokens.shape, 1));
  });
}
