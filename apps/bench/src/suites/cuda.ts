// Layer: apps/bench, suites. `cuda`: ops, training steps and generation of the published models on a GPU, beside the GPU's own limits
// in the same run, and beside PyTorch where DIFFMAMBA_PYTHON names a Python that has it. Runs on any backend that is named.
// Knows the lists of cases. Knows no op and no model.
import type { Case, Settings, Suite } from "../race.js";
import { limitCases } from "./cuda/ceilings.js";
import { generationCases } from "./cuda/generation.js";
import { opCases } from "./cuda/ops.js";
import { trainingCases } from "./cuda/training.js";

/** What is measured where no backend is named: the suites' usual default, plain TypeScript, would take days at these sizes. */
const own = "cuda";
const usualDefault = "reference";
const SMALL = 64;

/** `item` on the device that is named, or on this suite's own where the sizes are not those of a quick look. */
function onGpu(item: Case, { square }: Settings): Case {
  return {
    ...item,
    async prepare(context) {
      const { devices, open } = context;
      const isOwn = devices[0].name === usualDefault && square > SMALL;
      return item.prepare({ ...context, devices: isOwn ? [await open(own)] : devices });
    },
  };
}

export const cuda: Suite = {
  name: "cuda",
  summary:
    "bf16 on a GPU (or --backend NAME): scans, norms, products, training steps and generation of the published models, beside the GPU's limits and PyTorch",
  settings: {
    /** The cube, and the bytes that are copied. */
    ...{ square: 8192, copyBytes: 1 << 30 },
    /** Ops and steps. */
    ...{ batch: 8, length: 2048, dModel: 768, heads: 24, headDim: 64, dState: 128, scanState: 16, dConv: 4 },
    vocabSize: 50_288,
    /** Parameters that the optimizer steps. */
    parameters: 1 << 27,
    /** The models: of 130M parameters (dModel) and of 370M. */
    ...{ nLayers: 24, largeModel: 1024, largeLayers: 48 },
    /** Generation. */
    ...{ prompt: 128, rows: 64 },
  },
  quick: {
    ...{ square: 32, copyBytes: 1 << 16, batch: 2, length: 16, dModel: 16, heads: 4, headDim: 8, dState: 8 },
    ...{ scanState: 4, vocabSize: 64, parameters: 1 << 10, nLayers: 2, largeModel: 16, largeLayers: 2 },
    ...{ prompt: 5, rows: 3 },
  },
  patience: 3,
  cases: (settings) =>
    [...limitCases(settings), ...opCases(settings), ...trainingCases(settings), ...generationCases(settings)].map(
      (item) => onGpu(item, settings),
    ),
};
