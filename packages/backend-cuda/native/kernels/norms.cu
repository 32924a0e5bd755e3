// Layer: CUDA kernels. RMSNorm, plain, gated and in groups, RMSNorm of a residual sum, LayerNorm, and their gradients; the sum of what
// blocks have summed in part. A warp takes a row where it holds it in registers, else a block. Formulas: the reference.
// Knows no shape rule.

#include "gates.cuh"
#include "overlap.cuh"

/// Threads of a block of all of these kernels; teams of them share it.
constexpr int kThreads = 256;
/// Vectors of a row that a thread keeps in registers; what goes beyond them is read again. Where little else is kept, twice as many.
constexpr int kHeld = 2;

/// Calls body(item, slot) for this thread's vectors of a row: slot is a constant, or -1 where there is no register for it.
template <int HELD = kHeld, typename Body>
__device__ __forceinline__ void each_vector(int items, int member, int team, Body body) {
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const int item = member + i * team;
    if (item < items) body(item, i);
  }
  for (int item = member + HELD * team; item < items; item += team) body(item, -1);
}

/// The sum over a team of one or several whole warps, for all of its threads. `scratch` holds a float for each warp of the block.
__device__ __forceinline__ float team_sum(float x, int team, float* scratch) {
  x = warp_sum(x);
  if (team == 32) return x;
  const int own = threadIdx.x / team, first = own * (team / 32);
  // A barrier for each team: teams go on by themselves.
  asm volatile("bar.sync %0, %1;" ::"r"(1 + own), "r"(team) : "memory");
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  asm volatile("bar.sync %0, %1;" ::"r"(1 + own), "r"(team) : "memory");
  float sum = 0.0f;
  for (int w = 0; w < team / 32; w++) sum += scratch[first + w];
  return sum;
}

template <int V, typename T>
__device__ __forceinline__ void read(Vector<T, V>& to, const T* from) {
  to = *reinterpret_cast<const Vector<T, V>*>(from);
}
template <int V, typename T>
__device__ __forceinline__ void widen(const Vector<T, V>& from, float (&to)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) to[i] = to_float(from.at[i]);
}

// ---- RMSNorm ----

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

/// What a team sums of a row's columns over its rows: in registers as far as they go, then in shared memory.
template <int V>
struct ColumnSums {
  float held[kHeld][V];
  float* const shared;

  /// `shared` holds `size` floats.
  __device__ __forceinline__ ColumnSums(float* shared_, int items, int member, int team) : shared(shared_) {
#pragma unroll
    for (int i = 0; i < kHeld; i++)
#pragma unroll
      for (int v = 0; v < V; v++) held[i][v] = 0.0f;
    for (int item = member + kHeld * team; item < items; item += team)
      for (int v = 0; v < V; v++) shared[item * V + v] = 0.0f;
  }
  __device__ __forceinline__ void add(int item, int slot, int v, float x) {
    if (slot >= 0) held[slot][v] += x;
    else shared[item * V + v] += x;
  }
  /// To shared memory altogether.
  __device__ __forceinline__ void settle(int items, int member, int team) {
    each_vector(items, member, team, [&](int item, int slot) {
      if (slot < 0) return;
#pragma unroll
      for (int v = 0; v < V; v++) shared[item * V + v] = held[slot][v];
    });
  }
};

/// Adds up what the teams of a block have summed of a row's columns, into parts (blocks, columns) from `from` on.
__device__ __forceinline__ void store_parts(const float* sums, float* parts, int size, int columns, int from, int teams) {
  __syncwarp();
  __syncthreads();
  float* const to = parts + static_cast<long long>(blockIdx.x) * columns + from;
  for (int c = threadIdx.x; c < size; c += blockDim.x) {
    float sum = 0.0f;
    for (int t = 0; t < teams; t++) sum += sums[t * size + c];
    to[c] = sum;
  }
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

// ---- RMSNorm of a residual sum: S is the type of the residual stream, T the main one ----

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
  const int teams = kThreads / team, own = threadIdx.x / team, member = threadIdx.x % team, items = width / V;
  ColumnSums<V> dw(sums + own * width, items, member, team);
  for (int row = blockIdx.x * teams + own; row < rows; row += gridDim.x * teams) {
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
    const float shared = r * r * r * team_sum(product, team, scratch) / width;
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
  dw.settle(items, member, team);
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

// ---- LayerNorm: one element at a time, read again from the cache ----

template <typename T>
__device__ __forceinline__ void layer_norm(const T* x, const T* weight, const T* bias, T* y, float* mean, float* rstd,
                                           int rows, int width, long long x_pitch, long long y_pitch, float eps, int team) {
  __shared__ float scratch[32];
  const int row = blockIdx.x * (kThreads / team) + threadIdx.x / team;
  const int member = threadIdx.x % team;
  if (row >= rows) return;
  x += row * x_pitch;
  // Sums are of differences from the first element, which are small where all elements are far from 0.
  const float near = to_float(x[0]);
  float sum = 0.0f;
  for (int c = member; c < width; c += team) sum += to_float(x[c]) - near;
  const float middle = team_sum(sum, team, scratch) / width;
  float squares = 0.0f;
  for (int c = member; c < width; c += team) {
    const float d = to_float(x[c]) - near - middle;
    squares += d * d;
  }
  const float r = 1.0f / sqrtf(team_sum(squares, team, scratch) / width + eps);
  if (member == 0) {
    mean[row] = near + middle;
    rstd[row] = r;
  }
  for (int c = member; c < width; c += team) {
    const float n = (to_float(x[c]) - near - middle) * r;
    y[row * y_pitch + c] = from_float<T>(to_float(weight[c]) * n + (bias != nullptr ? to_float(bias[c]) : 0.0f));
  }
}

/// parts: (blocks, 2 * width): what the blocks sum of dweight, then of dbias.
template <typename T>
__device__ __forceinline__ void layer_norm_backward(const T* x, const T* weight, const float* mean, const float* rstd,
                                                    const T* dy, T* dx, float* parts, int rows, int width,
                                                    long long x_pitch, long long dy_pitch, long long dx_pitch, int team) {
  extern __shared__ float sums[];
  __shared__ float scratch[32];
  const int teams = kThreads / team, own = threadIdx.x / team, member = threadIdx.x % team;
  float* const dw = sums + own * width;
  float* const db = sums + (teams + own) * width;
  if (parts != nullptr)
    for (int c = member; c < width; c += team) dw[c] = db[c] = 0.0f;
  for (int row = blockIdx.x * teams + own; row < rows; row += gridDim.x * teams) {
    const float middle = mean[row], r = rstd[row];
    float sum_g = 0.0f, sum_gn = 0.0f;
    for (int c = member; c < width; c += team) {
      const float n = (to_float(x[row * x_pitch + c]) - middle) * r;
      const float d = to_float(dy[row * dy_pitch + c]);
      const float g = to_float(weight[c]) * d;
      if (parts != nullptr) dw[c] += d * n, db[c] += d;
      sum_g += g;
      sum_gn += g * n;
    }
    const float g_mean = team_sum(sum_g, team, scratch) / width;
    const float gn_mean = team_sum(sum_gn, team, scratch) / width;
    if (dx == nullptr) continue;
    for (int c = member; c < width; c += team) {
      const float n = (to_float(x[row * x_pitch + c]) - middle) * r;
      const float g = to_float(weight[c]) * to_float(dy[row * dy_pitch + c]);
      dx[row * dx_pitch + c] = from_float<T>(r * (g - g_mean - n * gn_mean));
    }
  }
  if (parts == nullptr) return;
  store_parts(sums, parts, width, 2 * width, 0, teams);
  store_parts(sums + teams * width, parts, width, 2 * width, width, teams);
}

#define DIFFMAMBA_LAYER(NAME, T)                                                                                      \
  extern "C" __global__ void layer_norm_##NAME(const T* x, const T* weight, const T* bias, T* y, float* mean,         \
                                               float* rstd, int rows, int width, long long x_pitch,                   \
                                               long long y_pitch, float eps, int team) {                              \
    layer_norm(x, weight, bias, y, mean, rstd, rows, width, x_pitch, y_pitch, eps, team);                             \
  }                                                                                                                   \
  extern "C" __global__ void layer_norm_backward_##NAME(                                                              \
      const T* x, const T* weight, const float* mean, const float* rstd, const T* dy, T* dx, float* parts, int rows,  \
      int width, long long x_pitch, long long dy_pitch, long long dx_pitch, int team) {                               \
    layer_norm_backward(x, weight, mean, rstd, dy, dx, parts, rows, width, x_pitch, dy_pitch, dx_pitch, team);        \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_LAYER)

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
