// Layer: CUDA kernels. The kernels of deferred tokens, by the type of what comes in and what the state lies in.

#include "ssd_deferred.cuh"

#define DEFERRED_KERNEL(name, T, H, N, settles) \
  extern "C" __global__ void __launch_bounds__(kDeferredThreads) name(const __grid_constant__ SsdDeferred p) { ssd_deferred<T, H, N, settles>(p); }
#define DEFERRED_KERNELS(name, T, H)                          \
  DEFERRED_KERNEL(ssd_deferred_##name##_64, T, H, 64, false)   \
  DEFERRED_KERNEL(ssd_deferred_##name##_128, T, H, 128, false) \
  DEFERRED_KERNEL(ssd_settle_##name##_64, T, H, 64, true)      \
  DEFERRED_KERNEL(ssd_settle_##name##_128, T, H, 128, true)
DIFFMAMBA_STATES(DEFERRED_KERNELS)
