// Layer: apps/bench, suites of the GPU. The models that are trained and generated with, at the sizes of the published ones, with numbers
// in them that are quick to make. Knows configurations. Knows no clock.
import { MambaLM, type ModelConfig } from "@diffmamba/models";
import type { BuildOptions } from "@diffmamba/nn";
import { uniform } from "../../data.js";
import type { Settings } from "../../race.js";

/** A model as the rows and the script of PyTorch name it. */
export interface BenchModel {
  readonly name: string;
  readonly config: Partial<ModelConfig>;
}

export function benchModels(settings: Settings): Record<"mamba" | "mamba2" | "large" | "differential", BenchModel> {
  const { dModel, nLayers, largeModel, largeLayers, dState, scanState, headDim, vocabSize } = settings;
  const mamba2 = { variant: "mamba2", vocabSize, dState, headDim } as const;
  const large = { dModel: largeModel, nLayers: largeLayers };
  return {
    mamba: { name: "Mamba-1 130M", config: { variant: "mamba", vocabSize, dState: scanState, dModel, nLayers } },
    mamba2: { name: "Mamba-2 130M", config: { ...mamba2, dModel, nLayers } },
    large: { name: "Mamba-2 370M", config: { ...mamba2, ...large } },
    differential: {
      name: "Diff-Mamba-2 370M alternate",
      config: { ...mamba2, ...large, variant: "diffmamba2", pattern: "alternate" },
    },
  };
}

/** A model whose matrices are small and whose other numbers are near 1: activations stay finite. */
export function benchModel({ config }: BenchModel, options: BuildOptions): MambaLM {
  const model = MambaLM.create(config, { ...options, draw: false });
  for (const [i, parameter] of model.parameters().entries()) {
    const [low, high] = parameter.rank > 1 ? [-0.03, 0.03] : [0.5, 1];
    using values = parameter.device.from(uniform(`parameter ${i}`, parameter.size, low, high), parameter.shape);
    parameter.assign(values);
  }
  return model;
}

export const describeBench = ({ config: { dModel, nLayers } }: BenchModel): string => `d${dModel} ${nLayers} layers`;
