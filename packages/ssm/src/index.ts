// @diffmamba/ssm: the Mamba and Mamba-2 mixers, their first values and their recurrent state.

export { CausalConv1d, type CausalConv1dOptions, conv1dWeight } from "./conv.js";
export { type DtRange, dtBias, logRange, logUniform, s4dReal } from "./init.js";
export { Mamba, type MambaOptions } from "./mamba.js";
export { Mamba2, type Mamba2Options } from "./mamba2.js";
export {
  chunks,
  Mixer,
  type MixerOptions,
  type MixerResult,
  type MixerState,
  replaceState,
  type StateDType,
  stepOptions,
  zeroState,
} from "./mixer.js";
