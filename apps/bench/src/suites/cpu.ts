// Layer: apps/bench, suites. `cpu`: the CPU backend beside native and WebAssembly peers, the reference backend and the machine's
// own limits, on one thread and on all. Knows the lists of cases. Knows no op.
import type { Suite } from "../race.js";
import { limitCases } from "./cpu/ceilings.js";
import { largeDecodeCases } from "./cpu/decode.js";
import { productCases } from "./cpu/matmul.js";
import { routineSuiteCases } from "./cpu/routines.js";
import { trainingCases } from "./cpu/train.js";

export const cpu: Suite = {
  name: "cpu",
  summary: "the CPU backend beside OpenBLAS, onnxruntime, WebAssembly peers, the reference and the machine's limits",
  backend: "cpu",
  settings: {
    /** The largest cube; a half and a quarter of it go before it. */
    square: 1024,
    /** The cube whose rate other work is a share of. */
    rateSquare: 512,
    /** The model that is trained, and how many of a batch's sequences the reference is given. */
    ...{ batch: 16, length: 256, dModel: 256, nLayers: 4, dState: 64, headDim: 64, expand: 2, vocabSize: 256 },
    ...{ dConv: 4, chunkSize: 64, referenceBatch: 1 },
    /** The scan of Mamba-1: a model of 256 has 512 channels. */
    ...{ scanBatch: 4, scanLength: 1024, scanModel: 256, scanState: 16 },
    /** The model of the demo. */
    ...{ demoTokens: 1024, demoWidth: 128, demoState: 32, demoHeadDim: 32, demoVocab: 105 },
    /** The model of 130M parameters. */
    ...{ wide: 768, wideLayers: 24, wideState: 128, wideVocab: 50_288, wideLength: 1024 },
    /** Parameters that the optimizer steps, and bytes that are read and copied: more than the caches hold. */
    ...{ parameters: 1 << 23, copyBytes: 1 << 29 },
  },
  quick: {
    ...{
      square: 32,
      rateSquare: 16,
      batch: 2,
      length: 8,
      dModel: 16,
      nLayers: 1,
      dState: 4,
      headDim: 4,
      vocabSize: 16,
    },
    ...{ chunkSize: 4, scanBatch: 1, scanLength: 8, scanModel: 8, scanState: 4 },
    ...{ demoTokens: 8, demoWidth: 8, demoState: 4, demoHeadDim: 4, demoVocab: 12 },
    ...{ wide: 16, wideLayers: 1, wideState: 4, wideVocab: 32, wideLength: 8, parameters: 64, copyBytes: 1 << 16 },
  },
  cases: (settings, threads) => [
    ...limitCases(settings, threads),
    ...productCases(settings, threads),
    ...routineSuiteCases(settings, threads),
    ...trainingCases(settings, threads),
    ...largeDecodeCases(settings, threads),
  ],
};
