// Layer: CUDA kernels. The kernels of deferred tokens, by the type of what comes in and what the state lies in.

#include "ssd_deferred.cuh"

#define DEFERRED_KERNEL(NAME, T, H, N, SETTLES)                                                                                  \
  extern "C" __global__ void __launch_bounds__(kDeferredThreads, sizeof(H) == 2 ? 4 : 3) NAME(const __grid_constant__ SsdDeferred p) { \
    ssd_deferred<T, H, N, SETTLES>(p);                                                                                           \
  }
#define DEFERRED(name, T, H, N) \
  DEFERRED_KERNEL(ssd_deferred_##name##_##N, T, H, N, false) DEFERRED_KERNEL(ssd_settle_##name##_##N, T, H, N, true)
#define DEFERRED_KERNELS(name, T, H) DEFERRED(name, T, H, 64) DEFERRED(name, T, H, 128)
DIFFMAMBA_STATES(DEFERRED_KERNELS)
