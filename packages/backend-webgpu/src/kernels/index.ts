// Layer: WebGPU kernels. All kernels of the interface.
// Knows the files beside it.

import type { Kernels } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { adamwKernels } from "./adamw.js";
import { addRmsNormKernels } from "./addRmsNorm.js";
import { causalConv1dKernels } from "./causalConv1d.js";
import { copyKernels } from "./copy.js";
import { elementwiseKernels } from "./elementwise.js";
import { globalNormKernels } from "./globalNorm.js";
import { withHalves } from "./half.js";
import { indexingKernels } from "./indexing.js";
import { layerNormKernels } from "./layerNorm.js";
import { matmulKernels } from "./matmul.js";
import { randomKernels } from "./random.js";
import { reduceKernels } from "./reduce.js";
import { rmsNormKernels } from "./rmsNorm.js";
import { sampleKernels } from "./sample.js";
import { selectiveScanKernels } from "./selectiveScan.js";
import { selectiveScanBackwardKernels } from "./selectiveScanBackward.js";
import { softmaxCrossEntropyKernels } from "./softmaxCrossEntropy.js";
import { ssdScanKernels } from "./ssdScan.js";
import { ssdScanBackwardKernels } from "./ssdScanBackward.js";

/** Kernels that compute in f32; half precision is widened where a kernel does not take it as it is. */
export function createKernels(context: KernelContext): Kernels {
  const kernels: Kernels = {
    ...elementwiseKernels(context),
    ...reduceKernels(context),
    ...matmulKernels(context),
    ...indexingKernels(context),
    ...copyKernels(context),
    ...randomKernels(context),
    ...causalConv1dKernels(context),
    ...selectiveScanKernels(context),
    ...selectiveScanBackwardKernels(context),
    ...ssdScanKernels(context),
    ...ssdScanBackwardKernels(context),
    ...rmsNormKernels(context),
    ...addRmsNormKernels(context),
    ...layerNormKernels(context),
    ...softmaxCrossEntropyKernels(context),
    ...sampleKernels(context),
    ...globalNormKernels(context),
    ...adamwKernels(context),
  };
  return withHalves(kernels, context);
}
