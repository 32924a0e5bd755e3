// From a configuration to the mixer of one layer.
// Knows all mixers. Knows no block and no model.

import { DiffMamba, DiffMamba2, DiffMamba2E, DiffS6, DiffS6Mamba2 } from "@diffmamba/differential";
import type { Build } from "@diffmamba/nn";
import { logRange, logUniform, Mamba, Mamba2, type Mamba2Options, type MambaOptions, type Mixer } from "@diffmamba/ssm";
import { baseOf, defaultConfig, type ModelConfig } from "./config.js";

export interface MixerPlace {
  /** Is this layer differential under the pattern? */
  readonly differential: boolean;
  /** What lambda_init counts. */
  readonly lambdaIndex: number;
  /** Factor on the first values of the output projection. */
  readonly outScale: number;
  /** What checkpoints call the branches. */
  readonly branchNames: readonly [string, string];
}

/** Options of both vanilla mixers; what one does not know it ignores. */
function vanillaOptions(config: ModelConfig, outScale: number): MambaOptions & Mamba2Options {
  const { dtLimit, dtRank, aInit, ...rest } = config;
  return {
    dModel: rest.dModel,
    dState: rest.dState,
    dConv: rest.dConv,
    expand: rest.expand,
    headDim: rest.headDim,
    nGroups: rest.nGroups,
    ...(rest.normGroups > 0 && { normGroups: rest.normGroups }),
    ...(dtRank > 0 && { dtRank }),
    dtMin: rest.dtMin,
    dtMax: rest.dtMax,
    dtInitFloor: rest.dtInitFloor,
    dtLimit: [dtLimit[0], dtLimit[1] ?? Number.POSITIVE_INFINITY],
    aInit: aInit === "range" ? logRange : logUniform(1, 16),
    dHasHeadDim: rest.dHasHeadDim,
    rmsNorm: rest.rmsNorm,
    normBeforeGate: rest.normBeforeGate,
    normEps: rest.normEps,
    convBias: rest.convBias,
    bias: rest.bias,
    learnableInitialState: rest.learnableInitialState,
    ...(rest.chunkSize !== defaultConfig.chunkSize && { chunkSize: rest.chunkSize }),
    outScale,
  };
}

/** The mixer of one layer. */
export function createMixer(config: ModelConfig, place: MixerPlace, build: Build): Mixer {
  const vanilla = vanillaOptions(config, place.outScale);
  const { variant, lambda, subln } = config;
  const { differential, lambdaIndex: layerIndex, branchNames } = place;
  if (!differential) return baseOf(variant) === "mamba" ? new Mamba(vanilla, build) : new Mamba2(vanilla, build);
  const options = { ...vanilla, lambda, subln, layerIndex, branchNames };
  const halved = { ...options, expand: config.expand / 2, headDim: config.headDim / 2 };
  switch (variant) {
    case "mamba":
      return new Mamba(vanilla, build);
    case "mamba2":
      return new Mamba2(vanilla, build);
    case "diffmamba":
      return new DiffMamba(halved, build);
    case "diffmamba2":
      return new DiffMamba2(halved, build);
    case "diffs6":
      return new DiffS6(options, build);
    case "diffs6mamba2":
      return new DiffS6Mamba2(options, build);
    case "diffmamba2e":
      return new DiffMamba2E(options, build);
  }
}
