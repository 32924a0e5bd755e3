// Layer: CUDA kernels. The kernels of deferred tokens, by the type of what comes in and what the state lies in.

#include "ssd_deferred.cuh"

/// Parameters lie one after the other, as the two launches' do.
struct SsdDeferredNorm {
  SsdDeferred scan;
  SsdNorm norm;
};

#define DEFERRED(name, T, H, N)                                                                                                   \
  extern "C" __global__ void __launch_bounds__(kDeferredThreads, sizeof(H) == 2 ? 4 : 3) ssd_deferred_##name##_##N(const __grid_constant__ SsdDeferred p) { \
    ssd_deferred<T, H, N, Deferred::token>(p);                                                                                    \
  }                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(kDeferredThreads, sizeof(H) == 2 ? 4 : 3) ssd_settle_##name##_##N(const __grid_constant__ SsdDeferred p) {   \
    ssd_deferred<T, H, N, Deferred::settle>(p);                                                                                   \
  }                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(kDeferredThreads, sizeof(H) == 2 ? 4 : 3)                                                                  \
      ssd_deferred_norm_##name##_##N(const __grid_constant__ SsdDeferredNorm p) {                                                 \
    ssd_deferred<T, H, N, Deferred::tokenAndNorm>(p.scan, &p.norm);                                                               \
  }
#define DEFERRED_KERNELS(name, T, H) DEFERRED(name, T, H, 64) DEFERRED(name, T, H, 128)
DIFFMAMBA_STATES(DEFERRED_KERNELS)
