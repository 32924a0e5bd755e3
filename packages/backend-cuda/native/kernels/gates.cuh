// Layer: CUDA kernels. The sigmoid and what is made of it, where arithmetic and not memory would be what a kernel waits for: divisions
// to within 2 units in the last place. Knows no kernel.
#pragma once

#include "common.cuh"

__device__ __forceinline__ float quick_sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

/// x sigmoid(x); 0 at minus infinity.
__device__ __forceinline__ float quick_silu(float x) {
  return x == -INFINITY ? 0.0f : __fdividef(x, 1.0f + __expf(-x));
}

/// d silu(x) / dx
__device__ __forceinline__ float quick_silu_gradient(float x) {
  const float s = quick_sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}
