// Layer: CUDA kernels. A token's matrix product: its parameters as they lie in memory, and how an element of it is written.
// Knows `matmul_skinny`, whose parameters they are. Knows no kernel.
#pragma once

#include "common.cuh"

struct Product {
  const void* a;
  const void* b;
  void* out;
  int m, n, k, a_pitch, b_pitch, out_pitch, accumulate, out_f32;
};

/// @returns what is written, as a float
template <typename T>
__device__ __forceinline__ float write_product(const Product& p, int row, int column, float x) {
  const long long at = static_cast<long long>(row) * p.out_pitch + column;
  if (p.out_f32) {
    float* const to = static_cast<float*>(p.out) + at;
    return *to = p.accumulate ? *to + x : x;
  }
  T* const to = static_cast<T*>(p.out) + at;
  return to_float(*to = from_float<T>(p.accumulate ? to_float(*to) + x : x));
}

/// Elements of a column, of rows that are `step` apart, where is_own(i): x becomes what is written. None waits for another.
template <typename T, int COUNT, typename Own>
__device__ __forceinline__ void write_products(const Product& p, int row, int step, int column, float (&x)[COUNT], Own is_own) {
  if (p.out_f32 || p.accumulate) {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (is_own(i)) x[i] = write_product<T>(p, row + i * step, column, x[i]);
    return;
  }
  T* const to = static_cast<T*>(p.out) + static_cast<long long>(row) * p.out_pitch + column;
  const long long pitch = static_cast<long long>(step) * p.out_pitch;
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    const T rounded = from_float<T>(x[i]);
    if (is_own(i)) to[i * pitch] = rounded;
    x[i] = to_float(rounded);
  }
}

/// An element of a (m, k) b', where b (n, k) has contiguous rows and k is a multiple of 8; lines are aligned to 16 bytes. One sum, in order.
template <typename T>
__device__ __forceinline__ float shallow_dot(const Product& p, int row, int column) {
  const T* const x = static_cast<const T*>(p.a) + static_cast<long long>(row) * p.a_pitch;
  const T* const w = static_cast<const T*>(p.b) + static_cast<long long>(column) * p.b_pitch;
  float sum = 0.0f;
  constexpr int V = kVector<T>;
#pragma unroll 4
  for (int i = 0; i < p.k; i += V) {
    float xs[V], ws[V];
    load<V>(x + i, xs);
    load<V>(w + i, ws);
#pragma unroll
    for (int v = 0; v < V; v++) sum = fmaf(xs[v], ws[v], sum);
  }
  return sum;
}
