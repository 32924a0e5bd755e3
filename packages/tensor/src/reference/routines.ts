// Layer: reference backend. All routines in one table; each one here is the definition that other backends are held to.
// Knows the routines' files and nothing else.

import type { RoutineKernels } from "../routineKernels.js";
import { adamw, globalNorm } from "./adamw.js";
import { addRmsNorm, addRmsNormBackward } from "./addRmsNorm.js";
import { causalConv1d, causalConv1dBackward } from "./causalConv1d.js";
import { layerNorm, layerNormBackward } from "./layerNorm.js";
import { rmsNorm, rmsNormBackward } from "./rmsNorm.js";
import { sample } from "./sample.js";
import { selectiveScan, selectiveScanBackward } from "./selectiveScan.js";
import { softmaxCrossEntropy, softmaxCrossEntropyBackward } from "./softmaxCrossEntropy.js";
import { ssdDeferred, ssdSettle } from "./ssdDeferred.js";
import { ssdScan } from "./ssdScan.js";
import { ssdScanBackward } from "./ssdScanBackward.js";

/** Every routine, for f32 and f64 views on {@link ReferenceBuffer}s. */
export const routines: RoutineKernels = {
  causalConv1d,
  causalConv1dBackward,
  selectiveScan,
  selectiveScanBackward,
  ssdScan,
  ssdScanBackward,
  ssdDeferred,
  ssdSettle,
  rmsNorm,
  rmsNormBackward,
  addRmsNorm,
  addRmsNormBackward,
  layerNorm,
  layerNormBackward,
  softmaxCrossEntropy,
  softmaxCrossEntropyBackward,
  sample,
  globalNorm,
  adamw,
};
