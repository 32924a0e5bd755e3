// Layer: CUDA kernels. A row of the gated RMSNorm norm(x silu(z)) that a team of threads holds whole. Formula: the reference.
// Knows no kernel.
#pragma once

#include "gates.cuh"
#include "norm_rows.cuh"

/// A thread's vectors of COUNT rows of as many tensors. What lies beyond the row stays zero.
template <int COUNT, int V, typename T>
struct Held {
  Vector<T, V> at[COUNT][kHeld];

  __device__ __forceinline__ Held() {
#pragma unroll
    for (int k = 0; k < COUNT; k++)
#pragma unroll
      for (int s = 0; s < kHeld; s++)
#pragma unroll
        for (int v = 0; v < V; v++) at[k][s].at[v] = from_float<T>(0.0f);
  }
  __device__ __forceinline__ void read_row(const T* const (&rows)[COUNT], int items, int member, int team) {
#pragma unroll
    for (int s = 0; s < kHeld; s++) {
      const int item = member + s * team;
      if (item >= items) break;
#pragma unroll
      for (int k = 0; k < COUNT; k++) read(at[k][s], rows[k] + item * V);
    }
  }
};

/// y = the norm of a team's row, weighted: `rows` are x and z, `weight` its weight. @returns rstd
template <int V, typename T>
__device__ __forceinline__ float gated_row(const Held<2, V, T>& rows, const Held<1, V, T>& weight, T* y, int size, float eps, int member,
                                           int team, float* scratch) {
  float v[kHeld][V], squares = 0.0f;
#pragma unroll
  for (int s = 0; s < kHeld; s++) {
    float gate[V];
    widen(rows.at[0][s], v[s]);
    widen(rows.at[1][s], gate);
#pragma unroll
    for (int i = 0; i < V; i++) {
      v[s][i] *= quick_silu(gate[i]);
      squares += v[s][i] * v[s][i];
    }
  }
  const float r = 1.0f / sqrtf(team_sum(squares, team, scratch) / size + eps);
#pragma unroll
  for (int s = 0; s < kHeld; s++) {
    const int item = member + s * team;
    if (item >= size / V) break;
    float ws[V];
    widen(weight.at[0][s], ws);
#pragma unroll
    for (int i = 0; i < V; i++) v[s][i] *= r * ws[i];
    store<V>(y + item * V, v[s]);
  }
  return r;
}
