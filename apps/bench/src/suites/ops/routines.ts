// Layer: apps/bench, suites. The routines with the sizes of one layer of a model: convolution, both scans, norms, loss.
// Knows what each kernel takes. Knows no other op.
import { count, integers, uniform } from "../../data.js";
import type { Case, Settings } from "../../race.js";
import { type HostInput, routineCases } from "./kernel.js";
import { ownMatmul } from "./matmul.js";

function input(name: string, shape: readonly number[], low = -1, high = 1): HostInput {
  return { shape, data: () => uniform(name, count(...shape), low, high) };
}

/** Weights of a norm, or rates of decay: away from zero. */
const positive = (name: string, shape: readonly number[]) => input(name, shape, 0.5, 1.5);
const negative = (name: string, shape: readonly number[]) => input(name, shape, -1.5, -0.5);

function causalConv1d({ batch, length, dModel, dState, dConv }: Settings): Case[] {
  const channels = 2 * dModel + 2 * dState;
  return routineCases({
    kernel: "causalConv1d",
    name: "causalConv1d",
    shape: `B${batch} L${length} C${channels} W${dConv}`,
    inputs: {
      x: input("x", [batch, length, channels]),
      weight: input("weight", [channels, dConv]),
      bias: input("bias", [channels]),
    },
    outputs: { y: [batch, length, channels], finalState: [batch, channels, dConv] },
    main: "y",
    saves: [],
    gradients: ["x", "weight", "bias"],
    options: { activation: "silu" },
    unit: "ms",
    work: { ms: 1 },
  });
}

function selectiveScan({ batch, length, dModel, scanState, chunkSize }: Settings): Case[] {
  const channels = 2 * dModel;
  const tokens = [batch, length, channels];
  const [B, C] = [input("B", [batch, length, 1, scanState]), input("C", [batch, length, 1, scanState])];
  return routineCases({
    kernel: "selectiveScan",
    name: "selectiveScan",
    shape: `B${batch} L${length} D${channels} N${scanState}`,
    inputs: {
      ...{ u: input("u", tokens), delta: input("delta", tokens, -4, 0), A: negative("A", [channels, scanState]), B, C },
      ...{ D: input("D", [channels]), z: input("z", tokens), deltaBias: input("deltaBias", [channels]) },
    },
    outputs: {
      y: tokens,
      finalState: [batch, channels, scanState],
      states: [batch, Math.ceil(length / chunkSize), channels, scanState],
    },
    main: "y",
    saves: ["states"],
    gradients: ["u", "delta", "A", "B", "C", "D", "z", "deltaBias"],
    options: { deltaSoftplus: true, chunkSize },
    unit: "ns/update",
    work: { "ns/update": count(batch, length, channels, scanState) },
  });
}

/**
 * Floating point operations of the chunked scan, forward (Dao and Gu 2024, section 6.2), with a chunk's lower triangle
 * counted whole: C B^T of each group, its product with x, the chunk's state, and the output of the state before it.
 */
function ssdFlops(
  tokens: number,
  chunk: number,
  heads: number,
  headDim: number,
  groups: number,
  state: number,
): number {
  return 2 * tokens * (chunk * groups * state + chunk * heads * headDim + 2 * heads * headDim * state);
}

function ssdScan({ batch, length, dModel, dState, headDim, chunkSize, square }: Settings): Case[] {
  const heads = Math.ceil((2 * dModel) / headDim);
  const tokens = [batch, length, heads, headDim];
  const [B, C] = [input("B", [batch, length, 1, dState]), input("C", [batch, length, 1, dState])];
  const routine = {
    kernel: "ssdScan",
    shape: `B${batch} L${length} H${heads} P${headDim} N${dState}`,
    inputs: {
      ...{ x: input("x", tokens), dt: input("dt", [batch, length, heads], -4, 0), A: negative("A", [heads]), B, C },
      ...{ D: input("D", [heads]), dtBias: input("dtBias", [heads]) },
    },
    outputs: {
      y: tokens,
      finalState: [batch, heads, headDim, dState],
      states: [batch, Math.ceil(length / chunkSize), heads, headDim, dState],
    },
    main: "y",
    saves: ["states"],
    gradients: ["x", "dt", "A", "B", "C", "D", "dtBias"],
    options: { chunkSize, dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] },
    work: {
      "ns/update": count(batch, length, heads, headDim, dState),
      "GFLOP/s": ssdFlops(batch * length, Math.min(chunkSize, length), heads, headDim, 1, dState),
    },
  } as const;
  const [forward] = routineCases({
    ...routine,
    name: "ssdScan as products",
    unit: "GFLOP/s",
    ceilings: (device) => [ownMatmul(device, square)],
  });
  return [...routineCases({ ...routine, name: "ssdScan", unit: "ns/update" }), forward];
}

function gatedNorm({ batch, length, dModel }: Settings): Case[] {
  const [rows, channels] = [batch * length, 2 * dModel];
  return routineCases({
    kernel: "rmsNorm",
    name: "rmsNorm gated",
    shape: `R${rows} D${channels}`,
    inputs: {
      x: input("x", [rows, channels]),
      weight: positive("weight", [channels]),
      z: input("z", [rows, channels]),
    },
    outputs: { y: [rows, channels], rstd: [rows, 1] },
    main: "y",
    saves: ["rstd"],
    gradients: ["x", "weight", "z"],
    options: { eps: 1e-5, groupSize: channels, normBeforeGate: false },
    unit: "ms",
    work: { ms: 1 },
  });
}

function crossEntropy({ batch, length, vocabSize }: Settings): Case[] {
  const rows = batch * length;
  return routineCases({
    kernel: "softmaxCrossEntropy",
    name: "softmaxCrossEntropy",
    shape: `R${rows} V${vocabSize}`,
    inputs: {
      logits: input("logits", [rows, vocabSize], -4, 4),
      targets: { shape: [rows], data: () => integers("targets", rows, vocabSize) },
    },
    outputs: { losses: [rows], logSumExp: [rows] },
    main: "losses",
    saves: ["logSumExp"],
    gradients: ["logits"],
    options: { ignoreIndex: -100 },
    unit: "ms",
    work: { ms: 1 },
  });
}

export function routinesCases(settings: Settings): Case[] {
  return [causalConv1d, selectiveScan, ssdScan, gatedNorm, crossEntropy].flatMap((cases) => cases(settings));
}
