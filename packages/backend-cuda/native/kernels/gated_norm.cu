// Layer: CUDA kernels. The gated RMSNorm norm(x silu(z)) and its gradients where a team of threads holds its rows whole: it has the next
// row on its way from memory while it computes with the one before. Every other form: rms_norm.cu. Formulas: the reference.
// Knows no shape rule.

#include "gates.cuh"
#include "norm_rows.cuh"
#include "overlap.cuh"

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

/// x, z, y: (rows, groups * size) with pitches, blocks along y are groups; rstd (rows, groups). size <= kHeld * team * V.
template <int V, typename T>
__device__ __forceinline__ void gated_rms_norm(const T* __restrict__ x, const T* __restrict__ z,
                                               const T* __restrict__ weight, T* __restrict__ y, float* rstd, int rows,
                                               int size, long long x_pitch, long long z_pitch, long long y_pitch,
                                               float eps, int team) {
  __shared__ float scratch[32];
  const int teams = kThreads / team, member = threadIdx.x % team, items = size / V;
  const int from = blockIdx.y * size, step = gridDim.x * teams;
  int row = blockIdx.x * teams + threadIdx.x / team;
  let_next_start();
  wait_for_previous();
  Held<1, V, T> w;
  w.read_row({weight + from}, items, member, team);
  Held<2, V, T> now, next;
  const auto read_ahead = [&](int of) {
    if (of < rows) next.read_row({x + of * x_pitch + from, z + of * z_pitch + from}, items, member, team);
  };
  read_ahead(row);
  for (; row < rows; row += step) {
    now = next;
    read_ahead(row + step);
    float v[kHeld][V], squares = 0.0f;
#pragma unroll
    for (int s = 0; s < kHeld; s++) {
      float gate[V];
      widen(now.at[0][s], v[s]);
      widen(now.at[1][s], gate);
#pragma unroll
      for (int i = 0; i < V; i++) {
        v[s][i] *= quick_silu(gate[i]);
        squares += v[s][i] * v[s][i];
      }
    }
    const float r = 1.0f / sqrtf(team_sum(squares, team, scratch) / size + eps);
    if (member == 0) rstd[row * gridDim.y + blockIdx.y] = r;
#pragma unroll
    for (int s = 0; s < kHeld; s++) {
      const int item = member + s * team;
      if (item >= items) break;
      float ws[V];
      widen(w.at[0][s], ws);
#pragma unroll
      for (int i = 0; i < V; i++) v[s][i] *= r * ws[i];
      store<V>(y + row * y_pitch + from + item * V, v[s]);
    }
  }
}

/// parts: (blocks, groups * size), absent with dweight.
template <int V, typename T>
__device__ __forceinline__ void gated_rms_norm_backward(const T* __restrict__ x, const T* __restrict__ z,
                                                        const T* __restrict__ weight, const float* rstd,
                                                        const T* __restrict__ dy, T* __restrict__ dx, T* __restrict__ dz,
                                                        float* parts, int rows, int size, long long x_pitch,
                                                        long long z_pitch, long long dy_pitch, long long dx_pitch,
                                                        long long dz_pitch, int team) {
  extern __shared__ float sums[];
  __shared__ float scratch[32];
  const int teams = kThreads / team, own = threadIdx.x / team, member = threadIdx.x % team, items = size / V;
  const int from = blockIdx.y * size, step = gridDim.x * teams;
  ColumnSums<V> dw(sums + own * size, items, member, team);
  Held<3, V, T> now, next;
  float r_next = 0.0f;
  const auto read_ahead = [&](int of) {
    if (of >= rows) return;
    next.read_row({x + of * x_pitch + from, z + of * z_pitch + from, dy + of * dy_pitch + from}, items, member, team);
    r_next = rstd[of * gridDim.y + blockIdx.y];
  };
  int row = blockIdx.x * teams + own;
  read_ahead(row);
  for (; row < rows; row += step) {
    now = next;
    const float r = r_next;
    read_ahead(row + step);
    float open[kHeld][V], product = 0.0f;
#pragma unroll
    for (int s = 0; s < kHeld; s++) {
      float v[V], gate[V], d[V], ws[V];
      widen(now.at[0][s], v);
      widen(now.at[1][s], gate);
      widen(now.at[2][s], d);
      load<V>(weight + from + min(member + s * team, items - 1) * V, ws);
#pragma unroll
      for (int i = 0; i < V; i++) {
        open[s][i] = quick_sigmoid(gate[i]);
        const float gv = d[i] * v[i] * (gate[i] == -INFINITY ? 0.0f : gate[i] * open[s][i]);
        dw.held[s][i] += gv * r;
        product += gv * ws[i];
      }
    }
    const float shared = r * r * r * team_sum(product, team, scratch) / size;
#pragma unroll
    for (int s = 0; s < kHeld; s++) {
      const int item = member + s * team;
      if (item >= items) break;
      float v[V], gate[V], d[V], ws[V], dzs[V];
      widen(now.at[0][s], v);
      widen(now.at[1][s], gate);
      widen(now.at[2][s], d);
      load<V>(weight + from + item * V, ws);
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float opened = gate[i] == -INFINITY ? 0.0f : gate[i] * open[s][i];
        const float dv = r * ws[i] * d[i] - v[i] * opened * shared;
        dzs[i] = dv * v[i] * (open[s][i] + opened * (1.0f - open[s][i]));
        d[i] = dv * opened;
      }
      if (dz != nullptr) store<V>(dz + row * dz_pitch + from + item * V, dzs);
      if (dx != nullptr) store<V>(dx + row * dx_pitch + from + item * V, d);
    }
  }
  if (parts == nullptr) return;
  dw.settle(items, member, team);
  store_parts(sums, parts, size, gridDim.y * size, from, teams);
}

#define DIFFMAMBA_GATED(NAME, T, V)                                                                                     \
  extern "C" __global__ void __launch_bounds__(256, 3) gated_rms_norm_##NAME(                                           \
      const T* x, const T* z, const T* weight, T* y, float* rstd, int rows, int size, long long x_pitch,                \
      long long z_pitch, long long y_pitch, float eps, int team) {                                                      \
    gated_rms_norm<V>(x, z, weight, y, rstd, rows, size, x_pitch, z_pitch, y_pitch, eps, team);                         \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256, 2) gated_rms_norm_backward_##NAME(                                  \
      const T* x, const T* z, const T* weight, const float* rstd, const T* dy, T* dx, T* dz, float* parts, int rows,    \
      int size, long long x_pitch, long long z_pitch, long long dy_pitch, long long dx_pitch, long long dz_pitch,       \
      int team) {                                                                                                       \
    gated_rms_norm_backward<V>(x, z, weight, rstd, dy, dx, dz, parts, rows, size, x_pitch, z_pitch, dy_pitch, dx_pitch, \
                               dz_pitch, team);                                                                         \
  }
DIFFMAMBA_GATED(f32, f32, 4) DIFFMAMBA_GATED(bf16, bf16, 8) DIFFMAMBA_GATED(f16, f16, 8)
