// The list of kernels, by number. The order is that of `kernelNames` in src/pack.ts; a test compares the two.
// Each kernel reads its arguments in the order in which src/pack.ts writes them, and returns an error or null.
// Knows names. Knows no implementation.
#pragma once

#include "view.h"

// One line a kernel: DIFFMAMBA_KERNEL(name). Sources are compiled once for each instruction set, in a namespace of its own.
#define DIFFMAMBA_KERNELS \
  DIFFMAMBA_KERNEL(unary) \
  DIFFMAMBA_KERNEL(binary) \
  DIFFMAMBA_KERNEL(compare) \
  DIFFMAMBA_KERNEL(where) \
  DIFFMAMBA_KERNEL(reduce) \
  DIFFMAMBA_KERNEL(argmax) \
  DIFFMAMBA_KERNEL(cumsum) \
  DIFFMAMBA_KERNEL(matmul) \
  DIFFMAMBA_KERNEL(gather) \
  DIFFMAMBA_KERNEL(scatterAdd) \
  DIFFMAMBA_KERNEL(copy) \
  DIFFMAMBA_KERNEL(fill) \
  DIFFMAMBA_KERNEL(iota) \
  DIFFMAMBA_KERNEL(random) \
  DIFFMAMBA_KERNEL(causalConv1d) \
  DIFFMAMBA_KERNEL(causalConv1dBackward) \
  DIFFMAMBA_KERNEL(selectiveScan) \
  DIFFMAMBA_KERNEL(selectiveScanBackward) \
  DIFFMAMBA_KERNEL(ssdScan) \
  DIFFMAMBA_KERNEL(ssdScanBackward) \
  DIFFMAMBA_KERNEL(rmsNorm) \
  DIFFMAMBA_KERNEL(rmsNormBackward) \
  DIFFMAMBA_KERNEL(addRmsNorm) \
  DIFFMAMBA_KERNEL(addRmsNormBackward) \
  DIFFMAMBA_KERNEL(layerNorm) \
  DIFFMAMBA_KERNEL(layerNormBackward) \
  DIFFMAMBA_KERNEL(softmaxCrossEntropy) \
  DIFFMAMBA_KERNEL(softmaxCrossEntropyBackward) \
  DIFFMAMBA_KERNEL(sample) \
  DIFFMAMBA_KERNEL(globalNorm) \
  DIFFMAMBA_KERNEL(adamw)

namespace diffmamba {

/// What went wrong, in words, in memory of the thread that called; null where nothing did.
using Error = const char*;
using Kernel = Error (*)(Args args);

/// Formats an error into memory that lasts until the next call on this thread.
Error fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace diffmamba

// The namespace of the instruction set that a kernel source is compiled for: -DDIFFMAMBA_ISA=avx2 and the like.
#ifdef DIFFMAMBA_ISA
namespace diffmamba {
namespace DIFFMAMBA_ISA {
#define DIFFMAMBA_KERNEL(name) Error name(Args args);
DIFFMAMBA_KERNELS
#undef DIFFMAMBA_KERNEL
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
#endif
