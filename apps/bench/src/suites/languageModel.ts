// Layer: apps/bench, suites. The pair of small models that training and decoding are timed on: Mamba-2 and Diff-Mamba-2 of
// equal width and state. Knows their configuration. Knows no clock.
import { MambaLM } from "@diffmamba/models";
import type { Device } from "@diffmamba/tensor";
import type { Settings } from "../race.js";

export type Variant = "mamba2" | "diffmamba2";

/** Sizes of both models, as a user of the reference backend has the patience for. */
export const modelSettings = {
  vocabSize: 256,
  dModel: 64,
  nLayers: 2,
  dState: 16,
  headDim: 16,
  expand: 2,
  chunkSize: 64,
} as const satisfies Settings;

export const quickModelSettings: Settings = {
  vocabSize: 16,
  dModel: 8,
  nLayers: 1,
  dState: 4,
  headDim: 4,
  chunkSize: 8,
};

export function createModel(device: Device, variant: Variant, settings: Settings): MambaLM {
  const { vocabSize, dModel, nLayers, dState, headDim, expand, chunkSize } = settings;
  const sizes = { vocabSize, dModel, nLayers, dState, headDim, expand, chunkSize };
  return MambaLM.create({ ...sizes, variant }, { device, seed: 1 });
}

/** "d64 2 layers N16 P16 V256" */
export function describeModel({ dModel, nLayers, dState, headDim, vocabSize }: Settings): string {
  return `d${dModel} ${nLayers} layers N${dState} P${headDim} V${vocabSize}`;
}
