// Layer: CUDA kernels. RMSNorm, plain, gated and in groups, of rows of any width, and its gradients; the sum of what blocks have summed
// in part. A warp takes a row where it holds it in registers, else a block. Formulas: the reference. Knows no shape rule.

#include "gates.cuh"
#include "norm_rows.cuh"
#include "overlap.cuh"

/// x, z, y: (rows, groups * size) with pitches; each group of a row has its own norm; rstd (rows, groups).
template <int V, typename T>
__device__ __forceinline__ void rms_norm(const T* __restrict__ x, const T* __restrict__ z, const T* __restrict__ weight,
                                         T* __restrict__ y, float* rstd, int units, int groups, int size,
                                         long long x_pitch, long long z_pitch, long long y_pitch, float eps, int before,
                                         int team) {
  let_next_start();
  wait_for_previous();
  __shared__ float scratch[32];
  const int unit = blockIdx.x * (kThreads / team) + threadIdx.x / team;
  const int member = threadIdx.x % team;
  if (unit >= units) return;
  const int row = unit / groups, from = unit % groups * size;
  x += row * x_pitch + from;
  if (z != nullptr) z += row * z_pitch + from;
  y += row * y_pitch + from;
  weight += from;
  const bool gate_first = z != nullptr && !before;
  const int items = size / V;
  Vector<T, V> xs[kHeld], zs[kHeld], ws[kHeld];
  each_vector(items, member, team, [&](int item, int slot) {
    if (slot < 0) return;
    read(xs[slot], x + item * V);
    if (z != nullptr) read(zs[slot], z + item * V);
    read(ws[slot], weight + item * V);
  });
  // What is normed and, where the gate comes after, what it lets through.
  const auto value = [&](int item, int slot, float (&v)[V], float (&open)[V]) {
    if (slot >= 0) widen(xs[slot], v);
    else load<V>(x + item * V, v);
#pragma unroll
    for (int i = 0; i < V; i++) open[i] = 1.0f;
    if (z == nullptr) return;
    float g[V];
    if (slot >= 0) widen(zs[slot], g);
    else load<V>(z + item * V, g);
#pragma unroll
    for (int i = 0; i < V; i++) (gate_first ? v[i] : open[i]) *= quick_silu(g[i]);
  };
  float vs[kHeld][V], opens[kHeld][V];
  float squares = 0.0f;
  each_vector(items, member, team, [&](int item, int slot) {
    float v[V], open[V];
    value(item, slot, v, open);
#pragma unroll
    for (int i = 0; i < V; i++) {
      squares += v[i] * v[i];
      if (slot >= 0) vs[slot][i] = v[i], opens[slot][i] = open[i];
    }
  });
  const float r = 1.0f / sqrtf(team_sum(squares, team, scratch) / size + eps);
  if (member == 0) rstd[unit] = r;
  each_vector(items, member, team, [&](int item, int slot) {
    float v[V], open[V], w[V];
    if (slot >= 0) widen(ws[slot], w);
    else load<V>(weight + item * V, w);
    if (slot < 0) value(item, slot, v, open);
#pragma unroll
    for (int i = 0; i < V; i++) {
      if (slot >= 0) v[i] = vs[slot][i], open[i] = opens[slot][i];
      v[i] *= r * w[i] * open[i];
    }
    store<V>(y + item * V, v);
  });
}

/// Blocks along y are groups; the teams of all blocks along x share the rows. parts: (blocks, groups * size), absent with dweight.
template <int V, typename T>
__device__ __forceinline__ void rms_norm_backward(const T* __restrict__ x, const T* __restrict__ z,
                                                  const T* __restrict__ weight, const float* rstd,
                                                  const T* __restrict__ dy, T* __restrict__ dx, T* __restrict__ dz,
                                                  float* parts, int rows, int groups, int size, long long x_pitch,
                                                  long long z_pitch, long long dy_pitch, long long dx_pitch,
                                                  long long dz_pitch, int before, int team) {
  extern __shared__ float sums[];
  __shared__ float scratch[32];
  const int teams = kThreads / team, own = threadIdx.x / team, member = threadIdx.x % team;
  const int from = blockIdx.y * size, items = size / V;
  ColumnSums<V> dw(sums + own * size, items, member, team);
  for (int row = blockIdx.x * teams + own; row < rows; row += gridDim.x * teams) {
    const T* const xr = x + row * x_pitch + from;
    const T* const zr = z != nullptr ? z + row * z_pitch + from : nullptr;
    const T* const dyr = dy + row * dy_pitch + from;
    const float r = rstd[row * groups + blockIdx.y];
    Vector<T, V> xs[kHeld], zs[kHeld], ds[kHeld];
    each_vector(items, member, team, [&](int item, int slot) {
      if (slot < 0) return;
      read(xs[slot], xr + item * V);
      read(ds[slot], dyr + item * V);
      if (zr != nullptr) read(zs[slot], zr + item * V);
    });
    const auto values = [&](int item, int slot, float (&x0)[V], float (&d)[V], float (&gate)[V]) {
      if (slot >= 0) {
        widen(xs[slot], x0);
        widen(ds[slot], d);
        if (zr != nullptr) widen(zs[slot], gate);
      } else {
        load<V>(xr + item * V, x0);
        load<V>(dyr + item * V, d);
        if (zr != nullptr) load<V>(zr + item * V, gate);
      }
    };
    // v is what is normed, g the gradient of weight times its norm.
    float product = 0.0f;
    each_vector(items, member, team, [&](int item, int slot) {
      float v[V], g[V], gate[V], w[V];
      values(item, slot, v, g, gate);
      load<V>(weight + from + item * V, w);
#pragma unroll
      for (int i = 0; i < V; i++) {
        if (zr != nullptr) (before ? g[i] : v[i]) *= quick_silu(gate[i]);
        const float gv = g[i] * v[i];
        dw.add(item, slot, i, gv * r);
        product += gv * w[i];
      }
    });
    const float shared = r * r * r * team_sum(product, team, scratch) / size;
    if (dx == nullptr && dz == nullptr) continue;
    each_vector(items, member, team, [&](int item, int slot) {
      float x0[V], d[V], gate[V], w[V], dxs[V], dzs[V];
      values(item, slot, x0, d, gate);
      load<V>(weight + from + item * V, w);
#pragma unroll
      for (int i = 0; i < V; i++) {
        if (zr == nullptr) {
          dxs[i] = r * w[i] * d[i] - x0[i] * shared;
          continue;
        }
        const float s = quick_sigmoid(gate[i]), opened = gate[i] == -INFINITY ? 0.0f : gate[i] * s;
        const float slope = s * (1.0f + gate[i] * (1.0f - s));
        if (before) {
          dxs[i] = r * w[i] * d[i] * opened - x0[i] * shared;
          dzs[i] = d[i] * w[i] * x0[i] * r * slope;
        } else {
          const float dv = r * w[i] * d[i] - x0[i] * opened * shared;
          dxs[i] = dv * opened;
          dzs[i] = dv * x0[i] * slope;
        }
      }
      if (dz != nullptr) store<V>(dz + row * dz_pitch + from + item * V, dzs);
      if (dx != nullptr) store<V>(dx + row * dx_pitch + from + item * V, dxs);
    });
  }
  if (parts == nullptr) return;
  dw.settle(items, member, team);
  store_parts(sums, parts, size, groups * size, from, teams);
}

#define DIFFMAMBA_RMS(NAME, T, V)                                                                                     \
  extern "C" __global__ void __launch_bounds__(256, 3) rms_norm_##NAME##_v##V(                                                                  \
      const T* x, const T* z, const T* weight, T* y, float* rstd, int units, int groups, int size, long long x_pitch, \
      long long z_pitch, long long y_pitch, float eps, int before, int team) {                                        \
    rms_norm<V>(x, z, weight, y, rstd, units, groups, size, x_pitch, z_pitch, y_pitch, eps, before, team);            \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256, 2) rms_norm_backward_##NAME##_v##V(                                                         \
      const T* x, const T* z, const T* weight, const float* rstd, const T* dy, T* dx, T* dz, float* parts, int rows,  \
      int groups, int size, long long x_pitch, long long z_pitch, long long dy_pitch, long long dx_pitch,             \
      long long dz_pitch, int before, int team) {                                                                     \
    rms_norm_backward<V>(x, z, weight, rstd, dy, dx, dz, parts, rows, groups, size, x_pitch, z_pitch, dy_pitch,       \
                         dx_pitch, dz_pitch, before, team);                                                           \
  }
DIFFMAMBA_RMS(f32, f32, 4) DIFFMAMBA_RMS(bf16, bf16, 8) DIFFMAMBA_RMS(f16, f16, 8)
DIFFMAMBA_RMS(f32, f32, 1) DIFFMAMBA_RMS(bf16, bf16, 1) DIFFMAMBA_RMS(f16, f16, 1)

// ---- what blocks have summed in part ----

/// out[c] = the sum over `rows` of parts[row * pitch + c], of 32 columns a block: 32 threads each for every 32nd row.
template <typename T>
__device__ __forceinline__ void sum_parts(const float* parts, T* out, int rows, int pitch, int columns) {
  __shared__ float scratch[32][33];
  const int c = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.0f;
  if (c < columns) {
#pragma unroll 8
    for (int row = threadIdx.y; row < rows; row += 32) sum += parts[static_cast<long long>(row) * pitch + c];
  }
  scratch[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  // Each warp sums the column of its own number.
  sum = warp_sum(scratch[threadIdx.x][threadIdx.y]);
  const int column = blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x == 0 && column < columns) out[column] = from_float<T>(sum);
}

#define DIFFMAMBA_PARTS(NAME, T)                                                                                      \
  extern "C" __global__ void __launch_bounds__(1024) sum_parts_##NAME(const float* parts, T* out, int rows, int pitch, \
                                                                      int columns) {                                  \
    sum_parts(parts, out, rows, pitch, columns);                                                                      \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_PARTS)
