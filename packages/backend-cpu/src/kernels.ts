// The kernels of the interface as packed native calls: which arguments, in which order. Each native kernel reads the same.
// Knows the interface and the packer. Knows no memory and no arithmetic.

import type { BinaryOp, CompareOp, Kernels, ReduceOp, UnaryOp } from "@diffmamba/tensor";
import type { KernelName, Packer } from "./pack.js";

export interface Calls {
  /** The packer, at its beginning. */
  begin(): Packer;
  /** Runs a kernel on what was packed. */
  run(name: KernelName): void;
}

// The numbers of native/kernels/elementwise.cc and reduce.cc.
const unaryOps: readonly UnaryOp[] = [
  "neg",
  "abs",
  "sign",
  "exp",
  "log",
  "sqrt",
  "rsqrt",
  "square",
  "reciprocal",
  "sigmoid",
  "tanh",
  "softplus",
  "silu",
  "erf",
];
const binaryOps: readonly BinaryOp[] = ["add", "sub", "mul", "div", "max", "min", "pow"];
const compareOps: readonly CompareOp[] = ["eq", "lt", "le"];
const reduceOps: readonly ReduceOp[] = ["sum", "max"];

const sequence = ["initialState", "seqIdx", "lengths"];
const conv = ["x", "weight", "bias", ...sequence];
const selective = ["u", "delta", "A", "B", "C", "D", "z", "deltaBias", ...sequence];
const ssd = ["x", "dt", "A", "B", "C", "D", "z", "dtBias", ...sequence];

export function createKernels({ begin, run }: Calls): Kernels {
  return {
    unary: (op, x, out) => {
      begin().number(unaryOps.indexOf(op)).view(x).view(out);
      run("unary");
    },
    binary: (op, a, b, out) => {
      begin().number(binaryOps.indexOf(op)).view(a).view(b).view(out);
      run("binary");
    },
    compare: (op, a, b, out) => {
      begin().number(compareOps.indexOf(op)).view(a).view(b).view(out);
      run("compare");
    },
    where: (cond, a, b, out) => {
      begin().view(cond).view(a).view(b).view(out);
      run("where");
    },
    reduce: (op, x, out) => {
      begin().number(reduceOps.indexOf(op)).view(x).view(out);
      run("reduce");
    },
    argmax: (x, out) => {
      begin().view(x).view(out);
      run("argmax");
    },
    cumsum: (x, out, { axis, reverse }) => {
      begin().view(x).view(out).number(axis).flag(reverse);
      run("cumsum");
    },
    matmul: (a, b, out, { accumulate }) => {
      begin().view(a).view(b).view(out).flag(accumulate);
      run("matmul");
    },
    gather: (table, index, out) => {
      begin().view(table).view(index).view(out);
      run("gather");
    },
    scatterAdd: (index, src, out) => {
      begin().view(index).view(src).view(out);
      run("scatterAdd");
    },
    copy: (x, out) => {
      begin().view(x).view(out);
      run("copy");
    },
    fill: (out, value) => {
      begin().view(out).number(value);
      run("fill");
    },
    iota: (out) => {
      begin().view(out);
      run("iota");
    },
    random: (out, step, { key, kind, threshold = 0 }) => {
      begin()
        .view(out)
        .view(step)
        .number(key[0])
        .number(key[1])
        .flag(kind === "keep")
        .number(threshold);
      run("random");
    },
    causalConv1d: (inputs, outputs, { activation }) => {
      begin()
        .views({ ...inputs }, conv)
        .views({ ...outputs }, ["y", "finalState"])
        .flag(activation === "silu");
      run("causalConv1d");
    },
    causalConv1dBackward: (inputs, outputs, { activation }) => {
      begin()
        .views({ ...inputs }, [...conv, "dy", "dfinalState"])
        .views({ ...outputs }, ["dx", "dweight", "dbias", "dinitialState"])
        .flag(activation === "silu");
      run("causalConv1dBackward");
    },
    selectiveScan: (inputs, outputs, { deltaSoftplus, chunkSize }) => {
      begin()
        .views({ ...inputs }, selective)
        .views({ ...outputs }, ["y", "finalState", "states"])
        .flag(deltaSoftplus)
        .number(chunkSize);
      run("selectiveScan");
    },
    selectiveScanBackward: (inputs, outputs, { deltaSoftplus, chunkSize }) => {
      begin()
        .views({ ...inputs }, [...selective, "states", "dy", "dfinalState"])
        .views({ ...outputs }, ["du", "ddelta", "dA", "dB", "dC", "dD", "dz", "ddeltaBias", "dinitialState"])
        .flag(deltaSoftplus)
        .number(chunkSize);
      run("selectiveScanBackward");
    },
    ssdScan: (inputs, outputs, { chunkSize, dtSoftplus, dtLimit }) => {
      begin()
        .views({ ...inputs }, ssd)
        .views({ ...outputs }, ["y", "finalState", "states"])
        .number(chunkSize)
        .flag(dtSoftplus)
        .number(dtLimit[0])
        .number(dtLimit[1]);
      run("ssdScan");
    },
    ssdScanBackward: (inputs, outputs, { chunkSize, dtSoftplus, dtLimit }) => {
      begin()
        .views({ ...inputs }, [...ssd, "states", "dy", "dfinalState"])
        .views({ ...outputs }, ["dx", "ddt", "dA", "dB", "dC", "dD", "dz", "ddtBias", "dinitialState"])
        .number(chunkSize)
        .flag(dtSoftplus)
        .number(dtLimit[0])
        .number(dtLimit[1]);
      run("ssdScanBackward");
    },
    rmsNorm: (inputs, outputs, { eps, groupSize, normBeforeGate }) => {
      begin()
        .views({ ...inputs }, ["x", "weight", "z"])
        .views({ ...outputs }, ["y", "rstd"])
        .number(eps)
        .number(groupSize)
        .flag(normBeforeGate);
      run("rmsNorm");
    },
    rmsNormBackward: (inputs, outputs, { eps, groupSize, normBeforeGate }) => {
      begin()
        .views({ ...inputs }, ["x", "weight", "z", "rstd", "dy"])
        .views({ ...outputs }, ["dx", "dweight", "dz"])
        .number(eps)
        .number(groupSize)
        .flag(normBeforeGate);
      run("rmsNormBackward");
    },
    addRmsNorm: (inputs, outputs, { eps }) => {
      begin()
        .views({ ...inputs }, ["x", "y", "weight"])
        .views({ ...outputs }, ["sum", "normed", "rstd"])
        .number(eps);
      run("addRmsNorm");
    },
    addRmsNormBackward: (inputs, outputs) => {
      begin()
        .views({ ...inputs }, ["sum", "weight", "rstd", "dsum", "dnormed"])
        .views({ ...outputs }, ["dx", "dy", "dweight"]);
      run("addRmsNormBackward");
    },
    layerNorm: (inputs, outputs, { eps }) => {
      begin()
        .views({ ...inputs }, ["x", "weight", "bias"])
        .views({ ...outputs }, ["y", "mean", "rstd"])
        .number(eps);
      run("layerNorm");
    },
    layerNormBackward: (inputs, outputs, { eps }) => {
      begin()
        .views({ ...inputs }, ["x", "weight", "bias", "mean", "rstd", "dy"])
        .views({ ...outputs }, ["dx", "dweight", "dbias"])
        .number(eps);
      run("layerNormBackward");
    },
    softmaxCrossEntropy: (inputs, outputs, { ignoreIndex }) => {
      begin()
        .views({ ...inputs }, ["logits", "targets"])
        .views({ ...outputs }, ["losses", "logSumExp"])
        .number(ignoreIndex);
      run("softmaxCrossEntropy");
    },
    softmaxCrossEntropyBackward: (inputs, outputs, { ignoreIndex }) => {
      begin()
        .views({ ...inputs }, ["logits", "targets", "logSumExp", "dlosses"])
        .views({ ...outputs }, ["dlogits"])
        .number(ignoreIndex);
      run("softmaxCrossEntropyBackward");
    },
    sample: (inputs, outputs, { temperature, topK, topP, minP }) => {
      begin()
        .views({ ...inputs }, ["logits", "keys", "positions"])
        .views({ ...outputs }, ["tokens", "logprobs"])
        .number(temperature)
        .number(topK)
        .number(topP)
        .number(minP);
      run("sample");
    },
    globalNorm: (tensors, out) => {
      const packer = begin().number(tensors.length);
      for (const tensor of tensors) packer.view(tensor);
      packer.view(out);
      run("globalNorm");
    },
    adamw: ({ params, grads, m, v, copies, lr, step, scale, norm }, { beta1, beta2, eps, weightDecay }) => {
      const packer = begin().view(lr).view(step).view(scale).view(norm).number(beta1).number(beta2).number(eps);
      packer.number(params.length);
      for (const [i, param] of params.entries())
        packer.view(param).view(grads[i]).view(m[i]).view(v[i]).view(copies?.[i]).number(weightDecay[i]);
      run("adamw");
    },
  };
}
