// Layer: CUDA kernels. All kernels of the backend in one table. Knows the files of kernels and nothing else.

import type { Kernels } from "@diffmamba/tensor";
import { convKernels } from "./causalConv1d.js";
import { elementwiseKernels } from "./elementwise.js";
import { indexingKernels } from "./indexing.js";
import { lossKernels } from "./loss.js";
import { matmulKernels, type ProductContext } from "./matmul.js";
import { normKernels } from "./norms.js";
import { optimizerKernels } from "./optimizer.js";
import { reduceKernels } from "./reduce.js";
import { selectiveScanKernels } from "./selectiveScan.js";
import { ssdDeferredKernels } from "./ssdDeferred.js";
import { ssdKernels } from "./ssdScan.js";

export type { Product, ProductContext } from "./matmul.js";
export { keepsTokens } from "./ssdDeferred.js";

export const createKernels = (context: ProductContext): Kernels => ({
  ...elementwiseKernels(context),
  ...reduceKernels(context),
  ...matmulKernels(context),
  ...indexingKernels(context),
  ...convKernels(context),
  ...normKernels(context),
  ...lossKernels(context),
  ...optimizerKernels(context),
  ...selectiveScanKernels(context),
  ...ssdKernels(context),
  ...ssdDeferredKernels(context),
});
