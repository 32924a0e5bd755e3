// Layer: apps/bench, suites. The routines with the sizes of one layer of a model: convolution, both scans, norms, loss.
// Knows what each kernel takes. Knows no other op.
import { count, integers, uniform } from "../../data.js";
import type { Case, Settings } from "../../race.js";
import { type HostInput, type Routine, routineCases } from "./kernel.js";
import { ownMatmul } from "./matmul.js";

function input(name: string, shape: readonly number[], low = -1, high = 1): HostInput {
  return { shape, data: () => uniform(name, count(...shape), low, high) };
}

/** Weights of a norm, or rates of decay: away from zero. */
const positive = (name: string, shape: readonly number[]) => input(name, shape, 0.5, 1.5);
const negative = (name: string, shape: readonly number[]) => input(name, shape, -1.5, -0.5);

export function causalConv1d({ batch, length, dModel, dState, dConv }: Settings): Routine {
  const channels = 2 * dModel + 2 * dState;
  return {
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
  };
}

export function selectiveScan({ batch, length, dModel, scanState, chunkSize }: Settings): Routine {
  const channels = 2 * dModel;
  const tokens = [batch, length, channels];
  const [B, C] = [input("B", [batch, length, 1, scanState]), input("C", [batch, length, 1, scanState])];
  const work = { "ns/update": count(batch, length, channels, scanState) };
  return {
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
    work: { forward: work, backward: work },
  };
}

/** Sizes of a chunked scan. */
interface SsdSizes {
  readonly tokens: number;
  readonly chunk: number;
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly state: number;
}

/**
 * Floating point operations of the matrix products of the chunked scan (Dao and Gu 2024, section 6.2), of a chunk's square
 * only the lower triangle, and none for decays. Forward: C B^T once a group; for each head its product with x, the state
 * of the chunk, and the output of the state before it. Backward: for each group C B^T and what it gives to dB and dC; for
 * each head dy x^T, the gradient of x through the triangle, and five products with a state: those of dB, dC, dx, the state's
 * own gradient, and C with the state for the gradient of the decays.
 */
export function ssdFlops({ tokens, chunk, heads, headDim, groups, state }: SsdSizes) {
  const triangle = (chunk + 1) / 2;
  const [group, head, states] = [groups * state, heads * headDim, heads * headDim * state];
  return {
    forward: 2 * tokens * (triangle * (group + head) + 2 * states),
    backward: 2 * tokens * (triangle * (3 * group + 2 * head) + 5 * states),
  };
}

export function ssdScan({ batch, length, dModel, dState, headDim, chunkSize, groups = 1 }: Settings): Routine {
  const heads = Math.ceil((2 * dModel) / headDim);
  const tokens = [batch, length, heads, headDim];
  const [B, C] = [input("B", [batch, length, groups, dState]), input("C", [batch, length, groups, dState])];
  const chunk = Math.min(chunkSize, length);
  const flops = ssdFlops({ tokens: batch * length, chunk, heads, headDim, groups, state: dState });
  const updates = count(batch, length, heads, headDim, dState);
  return {
    kernel: "ssdScan",
    name: "ssdScan",
    shape: `B${batch} L${length} H${heads} P${headDim}${groups > 1 ? ` G${groups}` : ""} N${dState}`,
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
      forward: { "ns/update": updates, "GFLOP/s": flops.forward },
      backward: { "ns/update": updates, "GFLOP/s": flops.backward },
    },
  };
}

export function gatedNorm({ batch, length, dModel }: Settings): Routine {
  const [rows, channels] = [batch * length, 2 * dModel];
  return {
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
  };
}

export function crossEntropy({ batch, length, vocabSize }: Settings): Routine {
  const rows = batch * length;
  return {
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
  };
}

export function routinesCases(settings: Settings): Case[] {
  const ssd = ssdScan(settings);
  return [
    ...routineCases(causalConv1d(settings), { unit: "ms" }),
    ...routineCases(selectiveScan(settings), { unit: "ns/update" }),
    ...routineCases(ssd, { unit: "ns/update" }),
    ...routineCases(
      { ...ssd, name: "ssdScan as products" },
      { unit: "GFLOP/s", ceilings: (device) => [ownMatmul(device, settings.square)] },
    ),
    ...routineCases(gatedNorm(settings), { unit: "ms" }),
    ...routineCases(crossEntropy(settings), { unit: "ms" }),
  ];
}
