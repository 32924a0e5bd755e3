// Layer: CUDA kernels. The kernels of ssd_kept.cuh, by type and N.

#include "ssd_kept.cuh"

#define DIFFMAMBA_KEPT(NAME, T, N)                                                                                            \
  extern "C" __global__ void __launch_bounds__(kKeptThreads, 4) ssd_kept_##NAME##_##N(const __grid_constant__ SsdDeferred p) { \
    ssd_kept<T, N>(p);                                                                                                        \
  }
DIFFMAMBA_KEPT(bf16, bf16, 64) DIFFMAMBA_KEPT(bf16, bf16, 128)
DIFFMAMBA_KEPT(f16, f16, 64) DIFFMAMBA_KEPT(f16, f16, 128)
