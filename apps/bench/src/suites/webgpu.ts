// Layer: apps/bench, suites. `webgpu`: the WebGPU backend beside what its adapter gives to plain shaders in the same run.
// Knows the lists of cases. Knows no op.
import type { Case, Suite } from "../race.js";
import { dispatchCases } from "./webgpu/dispatch.js";
import { memoryCases } from "./webgpu/memory.js";
import { modelCases } from "./webgpu/model.js";
import { bandwidthCases, limitCases, productCases, scanCases } from "./webgpu/ops.js";

/** A sample must be long beside the time that it takes to hear that the work is done. */
const SAMPLE_SECONDS = 0.1;

export const webgpu: Suite = {
  name: "webgpu",
  summary:
    "the WebGPU backend beside its adapter's own limits: products, bandwidth, scans, dispatches, a training step, decoding, a long run's memory",
  backend: "webgpu",
  settings: {
    /** The cube. */
    square: 4096,
    /** Tokens of the products, and elements of the tensors that are read and written. */
    ...{ tokens: 16_384, elements: 1 << 26 },
    /** The model of 130M parameters. */
    ...{ dModel: 768, nLayers: 24, dState: 128, headDim: 64, expand: 2, vocabSize: 50_288, dConv: 4, chunkSize: 64 },
    ...{ batch: 8, length: 1024 },
    /** The scans. */
    ...{ scanBatch: 8, scanLength: 2048, scanState: 16 },
    dispatches: 4096,
    /** Workgroups of the loop of multiply-adds. */
    loopGroups: 8192,
    /** The run whose memory is watched. */
    ...{ runSteps: 2000, runWidth: 64, runLayers: 2, runLength: 64 },
  },
  quick: {
    ...{ square: 32, tokens: 16, elements: 1 << 12, dModel: 16, nLayers: 1, dState: 4, headDim: 4, vocabSize: 32 },
    ...{ chunkSize: 4, batch: 1, length: 8, scanBatch: 1, scanLength: 8, scanState: 4, dispatches: 16 },
    ...{ loopGroups: 8, runSteps: 8, runWidth: 16, runLayers: 1, runLength: 8 },
  },
  cases: (settings) =>
    [
      ...limitCases(settings),
      ...productCases(settings),
      ...bandwidthCases(settings),
      ...scanCases(settings),
      ...dispatchCases(settings),
      ...modelCases(settings),
      ...memoryCases(settings),
    ].map(onWebGpu),
};

/** `item` on a device of its own. */
function onWebGpu(item: Case): Case {
  return {
    sampleSeconds: SAMPLE_SECONDS,
    ...item,
    async prepare(context) {
      return item.prepare({ ...context, devices: [await context.open("webgpu")] });
    },
  };
}
