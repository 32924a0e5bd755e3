// Layer: CUDA kernels. The kernels of ssd_kept.cuh, by type and N; of bf16 also with the first half of the norm that follows.

#include "ssd_kept.cuh"

/// Parameters lie one after the other, as the two launches' do.
struct KeptScanNorm {
  SsdDeferred scan;
  KeptNorm norm;
};

#define DIFFMAMBA_KEPT(NAME, T, N)                                                                                            \
  extern "C" __global__ void __launch_bounds__(kKeptThreads, 6) ssd_kept_##NAME##_##N(const __grid_constant__ SsdDeferred p) { \
    ssd_kept<T, N>(p);                                                                                                        \
  }
#define DIFFMAMBA_KEPT_NORM(N)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(kKeptThreads, 6) ssd_kept_norm_bf16_##N(const __grid_constant__ KeptScanNorm p) { \
    ssd_kept<bf16, N>(p.scan, &p.norm);                                                                                          \
  }
DIFFMAMBA_KEPT(bf16, bf16, 64) DIFFMAMBA_KEPT(bf16, bf16, 128)
DIFFMAMBA_KEPT(f16, f16, 64) DIFFMAMBA_KEPT(f16, f16, 128)
DIFFMAMBA_KEPT_NORM(64) DIFFMAMBA_KEPT_NORM(128)
