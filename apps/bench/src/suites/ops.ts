// Layer: apps/bench, suites. `ops`: every op that costs time in a model, forward and backward, beside peers and the machine's limits.
// Knows the lists of cases. Knows no op.
import type { Suite } from "../race.js";
import { ceilingCases } from "./ceilings.js";
import { elementwiseCases, optimizerCases } from "./ops/elementwise.js";
import { matmulCases } from "./ops/matmul.js";
import { routinesCases } from "./ops/routines.js";

export const ops: Suite = {
  name: "ops",
  summary:
    "matrix products, elementwise functions, reductions, conv, scans, norm, loss and optimizer, forward and backward",
  settings: {
    /** The largest square product; from 64 on, doubling. */
    square: 512,
    batch: 1,
    length: 512,
    dModel: 256,
    /** N of Mamba-2. */
    dState: 64,
    /** N of Mamba-1. */
    scanState: 16,
    headDim: 64,
    dConv: 4,
    chunkSize: 64,
    vocabSize: 4096,
    /** Width of a larger model, two of whose products are timed. */
    wide: 768,
    /** Parameters that the optimizer steps. */
    parameters: 1 << 20,
    copyBytes: 1 << 26,
  },
  quick: {
    ...{ square: 16, length: 8, dModel: 8, dState: 4, scanState: 4, headDim: 4, chunkSize: 4, vocabSize: 16 },
    ...{ wide: 16, parameters: 64, copyBytes: 1 << 16 },
  },
  cases: (settings) => [
    ...ceilingCases(settings),
    ...matmulCases(settings),
    ...elementwiseCases(settings),
    ...routinesCases(settings),
    ...optimizerCases(settings),
  ],
};
