// @diffmamba/differential: the differential mixers of arXiv 2507.06204 and of its released code.

export { toFused, toTwoBranch } from "./convert.js";
export { DiffMamba2, type DiffMamba2Options } from "./diffMamba2.js";
export { DiffMamba2E, type DiffMamba2EOptions } from "./diffMamba2E.js";
export { DiffS6, type DiffS6Options } from "./diffS6.js";
export { DiffS6Mamba2, type DiffS6Mamba2Options } from "./diffS6Mamba2.js";
export { type LambdaMode, type LambdaOptions, lambdaInit, lambdaModes, lambdaValue } from "./lambda.js";
export { type DepthPattern, differentialLayers } from "./patterns.js";
export { DiffMamba, DiffMamba2TwoBranch, type DiffMambaOptions } from "./twoBranch.js";
