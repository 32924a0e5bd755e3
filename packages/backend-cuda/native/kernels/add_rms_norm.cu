// Layer: CUDA kernels. RMSNorm of a residual sum, and its gradients: S is the type of the residual stream, T the main one.
// Formulas: the reference. Knows no shape rule.

#include "norm_rows.cuh"
#include "overlap.cuh"

template <int V, typename S, typename T>
__device__ __forceinline__ void add_rms_norm(const S* __restrict__ x, const T* __restrict__ y, const T* __restrict__ weight,
                                             S* __restrict__ sum, T* __restrict__ normed, float* rstd, int rows, int width,
                                             long long x_pitch, long long y_pitch, long long sum_pitch,
                                             long long normed_pitch, float eps, int team) {
  let_next_start();
  wait_for_previous();
  __shared__ float scratch[32];
  const int row = blockIdx.x * (kThreads / team) + threadIdx.x / team;
  const int member = threadIdx.x % team;
  if (row >= rows) return;
  float held[2 * kHeld][V];
  // The sum as it is stored, rounded.
  const auto value = [&](int item, float (&v)[V]) {
    load<V>(x + row * x_pitch + item * V, v);
    if (y == nullptr) return;
    float more[V];
    load<V>(y + row * y_pitch + item * V, more);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = round_to<S>(v[i] + more[i]);
  };
  float squares = 0.0f;
  each_vector<2 * kHeld>(width / V, member, team, [&](int item, int slot) {
    float v[V];
    value(item, v);
    if (sum != nullptr) store<V>(sum + row * sum_pitch + item * V, v);
#pragma unroll
    for (int i = 0; i < V; i++) {
      squares += v[i] * v[i];
      if (slot >= 0) held[slot][i] = v[i];
    }
  });
  const float r = 1.0f / sqrtf(team_sum(squares, team, scratch) / width + eps);
  if (member == 0) rstd[row] = r;
  each_vector<2 * kHeld>(width / V, member, team, [&](int item, int slot) {
    float v[V], w[V];
    if (slot < 0) value(item, v);
    load<V>(weight + item * V, w);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = (slot >= 0 ? held[slot][i] : v[i]) * r * w[i];
    store<V>(normed + row * normed_pitch + item * V, v);
  });
}

template <int V, typename S, typename T>
__device__ __forceinline__ void add_rms_norm_backward(const S* __restrict__ sum, const T* __restrict__ weight,
                                                      const float* rstd, const S* __restrict__ dsum,
                                                      const T* __restrict__ dnormed, S* __restrict__ dx,
                                                      T* __restrict__ dy, float* parts, int rows, int width,
                                                      long long sum_pitch, long long dsum_pitch, long long dnormed_pitch,
                                                      long long dx_pitch, long long dy_pitch, int team) {
  extern __shared__ float sums[];
  __shared__ float scratch[32];
  const int teams = kThreads / team, own = threadIdx.x / team, member = threadIdx.x % team, vectors = width / V;
  ColumnSums<V> dw(sums + own * width, vectors, member, team);
  // Teams go on together, in the end also those that have no row left.
  for (int first = blockIdx.x * teams; first < rows; first += gridDim.x * teams) {
    const int row = min(first + own, rows - 1), items = first + own < rows ? vectors : 0;
    const float r = rstd[row];
    const S* const sr = sum + row * sum_pitch;
    const T* const gr = dnormed != nullptr ? dnormed + row * dnormed_pitch : nullptr;
    const S* const dr = dsum != nullptr ? dsum + row * dsum_pitch : nullptr;
    Vector<S, V> vs[kHeld], ds[kHeld];
    Vector<T, V> gs[kHeld];
    each_vector(items, member, team, [&](int item, int slot) {
      if (slot < 0) return;
      read(vs[slot], sr + item * V);
      if (gr != nullptr) read(gs[slot], gr + item * V);
      if (dr != nullptr) read(ds[slot], dr + item * V);
    });
    const auto values = [&](int item, int slot, float (&v)[V], float (&g)[V]) {
      if (slot >= 0) widen(vs[slot], v);
      else load<V>(sr + item * V, v);
      if (gr == nullptr) {
#pragma unroll
        for (int i = 0; i < V; i++) g[i] = 0.0f;
      } else if (slot >= 0) {
        widen(gs[slot], g);
      } else {
        load<V>(gr + item * V, g);
      }
    };
    float product = 0.0f;
    each_vector(items, member, team, [&](int item, int slot) {
      float v[V], g[V], w[V];
      values(item, slot, v, g);
      load<V>(weight + item * V, w);
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float gv = g[i] * v[i];
        dw.add(item, slot, i, gv * r);
        product += gv * w[i];
      }
    });
    const float shared = r * r * r * team_sum<true>(product, team, scratch) / width;
    if (dx == nullptr && dy == nullptr) continue;
    each_vector(items, member, team, [&](int item, int slot) {
      float v[V], g[V], d[V], w[V];
      values(item, slot, v, g);
      load<V>(weight + item * V, w);
#pragma unroll
      for (int i = 0; i < V; i++) d[i] = 0.0f;
      if (dr != nullptr && slot >= 0) widen(ds[slot], d);
      else if (dr != nullptr) load<V>(dr + item * V, d);
#pragma unroll
      for (int i = 0; i < V; i++) d[i] += r * w[i] * g[i] - v[i] * shared;
      if (dx != nullptr) store<V>(dx + row * dx_pitch + item * V, d);
      if (dy != nullptr) store<V>(dy + row * dy_pitch + item * V, d);
    });
  }
  if (parts == nullptr) return;
  dw.settle(vectors, member, team);
  store_parts(sums, parts, width, width, 0, teams);
}

#define DIFFMAMBA_ADD_RMS(S, T, V)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256, 4) add_rms_norm_##S##_##T##_v##V(                                                           \
      const S* x, const T* y, const T* weight, S* sum, T* normed, float* rstd, int rows, int width,                   \
      long long x_pitch, long long y_pitch, long long sum_pitch, long long normed_pitch, float eps, int team) {       \
    add_rms_norm<V>(x, y, weight, sum, normed, rstd, rows, width, x_pitch, y_pitch, sum_pitch, normed_pitch, eps,     \
                    team);                                                                                            \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256, 2) add_rms_norm_backward_##S##_##T##_v##V(                                                  \
      const S* sum, const T* weight, const float* rstd, const S* dsum, const T* dnormed, S* dx, T* dy, float* parts,  \
      int rows, int width, long long sum_pitch, long long dsum_pitch, long long dnormed_pitch, long long dx_pitch,    \
      long long dy_pitch, int team) {                                                                                 \
    add_rms_norm_backward<V>(sum, weight, rstd, dsum, dnormed, dx, dy, parts, rows, width, sum_pitch, dsum_pitch,     \
                             dnormed_pitch, dx_pitch, dy_pitch, team);                                                \
  }
DIFFMAMBA_ADD_RMS(f32, f32, 4) DIFFMAMBA_ADD_RMS(bf16, bf16, 8) DIFFMAMBA_ADD_RMS(f16, f16, 8)
DIFFMAMBA_ADD_RMS(f32, bf16, 8) DIFFMAMBA_ADD_RMS(f32, f16, 8)
DIFFMAMBA_ADD_RMS(f32, f32, 1) DIFFMAMBA_ADD_RMS(bf16, bf16, 1) DIFFMAMBA_ADD_RMS(f16, f16, 1)
DIFFMAMBA_ADD_RMS(f32, bf16, 1) DIFFMAMBA_ADD_RMS(f32, f16, 1)
