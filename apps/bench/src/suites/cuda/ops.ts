// Layer: apps/bench, suites of the GPU. One layer's ops in bf16 at the sizes of the published models, forward, and forward with backward,
// beside a copy of the bytes that must be moved, or beside the device's rate of products, and beside PyTorch's.
// Knows the kernels that it times. Knows no model.
import { type Device, linear, noGrad, type RoutineKernels, scope, type Tensor, type View } from "@diffmamba/tensor";
import { count, integers, onDevice, uniform } from "../../data.js";
import { pytorchPeers } from "../../peers/pytorch.js";
import { type Case, contest, type Entry, type Settings } from "../../race.js";
import { deviceCopy, deviceProduct, halves } from "./ceilings.js";

type Shape = readonly number[];
type Type = "bf16" | "f32" | "i32";
/** A tensor of an op: its type, its shape, and its range. */
type Spec = readonly [type: Type, shape: Shape, low?: number, high?: number];

/** An op by its kernels. `d<name>` is the gradient of input or output `name`, of its type. */
interface OpCase {
  readonly kernel: "ssdScan" | "selectiveScan" | "causalConv1d" | "rmsNorm" | "addRmsNorm" | "softmaxCrossEntropy";
  /** As in the rows, and as the script of PyTorch knows it. */
  readonly name: string;
  readonly shape: string;
  readonly inputs: Readonly<Record<string, Spec>>;
  readonly outputs: Readonly<Record<string, Spec>>;
  /** Outputs whose gradients are given, and inputs and outputs that backward takes. */
  readonly given: readonly string[];
  readonly takes: readonly string[];
  /** Inputs whose gradients are written. */
  readonly gradients: readonly string[];
  readonly options: object;
}

type Kernel = (inputs: Record<string, View>, outputs: Record<string, View>, options: object) => void;

function kernelOf(device: Device, name: keyof RoutineKernels): Kernel {
  const { kernels } = device.backend;
  const kernel = kernels[name];
  if (kernel === undefined) throw new Error(`the backend ${device.name} has no kernel ${name}`);
  return kernel.bind(kernels) as unknown as Kernel;
}

function make(device: Device, name: string, [type, shape, low = -1, high = 1]: Spec): Tensor {
  if (type === "i32") return device.from(integers(name, count(...shape), high), shape, "i32");
  using values = device.from(uniform(name, count(...shape), low, high), shape);
  return noGrad(() => (type === "f32" ? values.clone() : values.cast(type)));
}

const bytesOf = ([type, shape]: Spec) => (type === "bf16" ? 2 : 4) * count(...shape);
const sum = (specs: readonly Spec[]) => specs.reduce((bytes, spec) => bytes + bytesOf(spec), 0);

/** A scan with the chunks that the device is fastest with. */
function inChunks(device: Device, op: OpCase): OpCase {
  const { states } = op.outputs;
  if ((op.kernel !== "ssdScan" && op.kernel !== "selectiveScan") || states === undefined) return op;
  const [type, [batch, length, ...rest]] = states;
  const chunkSize = Math.min(length, device.backend.chunkSizes?.[op.kernel] ?? 64);
  return {
    ...op,
    outputs: { ...op.outputs, states: [type, [batch, Math.ceil(length / chunkSize), ...rest]] },
    options: { ...op.options, chunkSize },
  };
}

function entryOf(device: Device, op: OpCase, withBackward: boolean, bytes: number): Entry {
  const { inputs, outputs, options } = inChunks(device, op);
  const all = { ...inputs, ...outputs };
  const tensors = Object.fromEntries(Object.entries(all).map(([name, spec]) => [name, make(device, name, spec)]));
  const pick = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, tensors[name].view()]));
  const forward = kernelOf(device, op.kernel);
  const backward = withBackward ? kernelOf(device, `${op.kernel}Backward`) : undefined;
  const slopes = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [`d${name}`, make(device, `d${name}`, all[name])]));
  const [cotangents, gradients] = withBackward ? [slopes(op.given), slopes(op.gradients)] : [{}, {}];
  const views = (from: Record<string, Tensor>) =>
    Object.fromEntries(Object.entries(from).map(([name, tensor]) => [name, tensor.view()]));
  const [from, to] = [pick(Object.keys(inputs)), pick(Object.keys(outputs))];
  const back = { ...pick(op.takes), ...views(cotangents) };
  const into = views(gradients);
  return onDevice(device, {
    work: { ms: 1, "GB/s": bytes },
    holds: [...Object.values(tensors), ...Object.values(cotangents), ...Object.values(gradients)],
    run() {
      forward(from, to, options);
      backward?.(back, into, options);
    },
  });
}

/** Forward, and forward with backward, each beside a copy of the bytes that it cannot avoid. */
function opPair(op: OpCase): Case[] {
  const { inputs, outputs, given, takes, gradients } = op;
  // States between chunks are the kernel's own affair.
  const { states: _, ...needed } = outputs;
  const all: Readonly<Record<string, Spec>> = { ...inputs, ...needed };
  const specs = (names: readonly string[]) => names.flatMap((name) => (name in all ? [all[name]] : []));
  const forward = sum([...Object.values(inputs), ...Object.values(needed)]);
  const backward = sum([...specs(takes), ...specs(given), ...specs(gradients)]);
  return [false, true].map((withBackward) => {
    const name = `${op.name} ${withBackward ? "forward+backward" : "forward"}`;
    const bytes = forward + (withBackward ? backward : 0);
    return contest({
      ...{ name, shape: op.shape, unit: "ms" },
      ours: (device) => entryOf(device, op, withBackward, bytes),
      peers: pytorchPeers(name, op.shape),
      ceilings: (device) => [deviceCopy(device, bytes)],
    });
  });
}

function scans(settings: Settings): OpCase[] {
  const { batch, length, heads, headDim, dState, dModel, scanState, dConv } = settings;
  const [channels, inner] = [heads * headDim, 2 * dModel];
  // One state a token: how many there really are, the device's chunks decide.
  const tokens: Shape = [batch, length, heads, headDim];
  const shared: Shape = [batch, length, 1, dState];
  const wide: Shape = [batch, length, inner];
  const narrow: Shape = [batch, length, 1, scanState];
  const ssd: OpCase = {
    kernel: "ssdScan",
    name: "ssd",
    shape: `B${batch} L${length} H${heads} P${headDim} N${dState}`,
    inputs: {
      ...{ x: ["bf16", tokens], dt: ["bf16", [batch, length, heads], -4, 0], A: ["f32", [heads], -1.5, -0.5] },
      ...{ B: ["bf16", shared], C: ["bf16", shared], D: ["f32", [heads]], dtBias: ["f32", [heads]] },
    },
    outputs: {
      y: ["bf16", tokens],
      finalState: ["f32", [batch, heads, headDim, dState]],
      states: ["f32", [batch, length, heads, headDim, dState]],
    },
    ...{ given: ["y"], takes: ["x", "dt", "A", "B", "C", "D", "dtBias", "states"] },
    gradients: ["x", "dt", "A", "B", "C", "D", "dtBias"],
    options: { dtSoftplus: true, dtLimit: [0, Number.POSITIVE_INFINITY] },
  };
  const selective: OpCase = {
    kernel: "selectiveScan",
    name: "selective scan",
    shape: `B${batch} L${length} D${inner} N${scanState}`,
    inputs: {
      ...{ u: ["bf16", wide], delta: ["bf16", wide, -4, 0], A: ["f32", [inner, scanState], -1.5, -0.5] },
      ...{
        B: ["bf16", narrow],
        C: ["bf16", narrow],
        D: ["f32", [inner]],
        z: ["bf16", wide],
        deltaBias: ["f32", [inner]],
      },
    },
    outputs: {
      y: ["bf16", wide],
      finalState: ["f32", [batch, inner, scanState]],
      states: ["f32", [batch, length, inner, scanState]],
    },
    ...{ given: ["y"], takes: ["u", "delta", "A", "B", "C", "D", "z", "deltaBias", "states"] },
    gradients: ["u", "delta", "A", "B", "C", "D", "z", "deltaBias"],
    options: { deltaSoftplus: true },
  };
  const conv: OpCase = {
    kernel: "causalConv1d",
    name: "conv1d + SiLU",
    shape: `B${batch} L${length} D${channels} W${dConv}`,
    inputs: {
      ...{ x: ["bf16", [batch, length, channels]], weight: ["bf16", [channels, dConv]], bias: ["bf16", [channels]] },
    },
    outputs: { y: ["bf16", [batch, length, channels]], finalState: ["f32", [batch, channels, dConv]] },
    ...{ given: ["y"], takes: ["x", "weight", "bias"], gradients: ["x", "weight", "bias"] },
    options: { activation: "silu" },
  };
  return [ssd, selective, conv];
}

function norms({ batch, length, dModel, vocabSize }: Settings): OpCase[] {
  const rows = batch * length;
  const inner = 2 * dModel;
  const wide: Spec = ["bf16", [rows, inner]];
  const entropyRows = Math.min(rows, 2048);
  return [
    {
      kernel: "addRmsNorm",
      name: "add + RMSNorm",
      shape: `${rows}x${dModel}`,
      inputs: { x: ["f32", [rows, dModel]], y: ["bf16", [rows, dModel]], weight: ["bf16", [dModel], 0.5, 1.5] },
      outputs: { sum: ["f32", [rows, dModel]], normed: ["bf16", [rows, dModel]], rstd: ["f32", [rows]] },
      ...{ given: ["sum", "normed"], takes: ["sum", "weight", "rstd"], gradients: ["x", "y", "weight"] },
      options: { eps: 1e-5 },
    },
    {
      kernel: "rmsNorm",
      name: "gated RMSNorm",
      shape: `${rows}x${inner}`,
      inputs: { x: wide, weight: ["bf16", [inner], 0.5, 1.5], z: wide },
      outputs: { y: wide, rstd: ["f32", [rows, 1]] },
      ...{ given: ["y"], takes: ["x", "weight", "z", "rstd"], gradients: ["x", "weight", "z"] },
      options: { eps: 1e-5, groupSize: inner, normBeforeGate: false },
    },
    {
      kernel: "softmaxCrossEntropy",
      name: "cross-entropy",
      shape: `${entropyRows}x${vocabSize}`,
      inputs: { logits: ["bf16", [entropyRows, vocabSize], -4, 4], targets: ["i32", [entropyRows], 0, vocabSize] },
      outputs: { losses: ["f32", [entropyRows]], logSumExp: ["f32", [entropyRows]] },
      ...{ given: ["losses"], takes: ["logits", "targets", "logSumExp"], gradients: ["logits"] },
      options: { ignoreIndex: -100 },
    },
  ];
}

/** A linear layer's forward product, beside the rate of the large one. */
function productCase(rows: number, inputs: number, outputs: number, square: number): Case {
  const shape = `${rows}x${inputs}x${outputs}`;
  return contest({
    ...{ name: "linear", shape, unit: "GFLOP/s" },
    ours(device) {
      const x = make(device, "x", ["bf16", [rows, inputs]]);
      const weight = make(device, "weight", ["bf16", [outputs, inputs]]);
      return onDevice(device, {
        work: { "GFLOP/s": 2 * rows * inputs * outputs },
        holds: [x, weight],
        run: () => noGrad(() => scope(() => void linear(x, weight))),
      });
    },
    ceilings: (device) => [deviceProduct(device, square)],
  });
}

/** A step of the optimizer with bf16 gradients and copies. */
function optimizerCase(parameters: number): Case {
  const shape = `${parameters} parameters, bf16 gradients and copies`;
  const bytes = 2 * 3 * 4 * parameters + halves(2 * parameters);
  return contest({
    ...{ name: "AdamW", shape, unit: "ms" },
    ours(device) {
      const tensors = [0, 1, 2].map(() => device.full([parameters], 1e-3));
      const [param, m, v] = tensors;
      const [grad, copy] = [0, 1].map(() => device.full([parameters], 1e-3, "bf16"));
      const scalars = [device.full([], 1e-3), device.zeros([], "i32"), device.ones([]), device.ones([])];
      const view = (x: Tensor) => x.view();
      const [lr, step, scale, norm] = scalars.map(view);
      const { kernels } = device.backend;
      return onDevice(device, {
        work: { ms: 1, "GB/s": bytes },
        holds: [...tensors, grad, copy, ...scalars],
        run: () =>
          kernels.adamw?.(
            {
              ...{ params: [view(param)], grads: [view(grad)], m: [view(m)], v: [view(v)], copies: [view(copy)] },
              ...{ lr, step, scale, norm },
            },
            { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: [0.1] },
          ),
      });
    },
    ceilings: (device) => [deviceCopy(device, bytes)],
  });
}

export function opCases(settings: Settings): Case[] {
  const { batch, length, dModel, heads, headDim, dState, vocabSize, square, parameters } = settings;
  const rows = batch * length;
  const inner = heads * headDim;
  return [
    ...[...scans(settings), ...norms(settings)].flatMap(opPair),
    productCase(rows, dModel, 2 * inner + 2 * dState + heads, square),
    productCase(rows, inner, dModel, square),
    productCase(rows, dModel, vocabSize, square),
    optimizerCase(parameters),
  ];
}
