// Layer: CUDA kernels. ssd_backward.cuh for each type, padded N and tile: ssd_backward_<type>_<N>_<Q>.

#include "ssd_backward.cuh"

#define KERNEL(name, T, N, Q, Blocks)                                                                                      \
  extern "C" __global__ void __launch_bounds__(Q * 4, Blocks)                                                              \
      ssd_backward_##name##_##N##_##Q(const __grid_constant__ SsdBackward p) {                                                         \
    if constexpr (ssd_is_launched<T, Q>(sizeof(SsdBackwardShared<T, N, Q>))) ssd_backward<T, N, Q>(p);                                 \
    else __trap();                                                                                                         \
  }

#define HALVES(name, T)                                                                                                        \
  KERNEL(name, T, 64, 64, 2) KERNEL(name, T, 128, 64, 2) KERNEL(name, T, 256, 64, 1) KERNEL(name, T, 128, 32, 2) KERNEL(name, T, 256, 32, 1)

HALVES(bf16, bf16)
HALVES(f16, f16)
KERNEL(f32, f32, 64, 32, 1)
KERNEL(f32, f32, 128, 32, 1)
KERNEL(f32, f32, 256, 32, 1)
