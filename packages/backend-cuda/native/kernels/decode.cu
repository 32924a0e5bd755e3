// Layer: CUDA kernels. What a token of few rows needs, several kernels in one: a norm, the product that it feeds, and the convolution of
// some of its columns; a product and the selective scan whose steps it gives. Each gives the bits of the kernels one by one, whose
// arithmetic and order of sums it has, and writes all that they write. Which may go together: src/fuse.ts. Knows no model.

#include "conv_step.cuh"
#include "norm_rows.cuh"
#include "overlap.cuh"
#include "selective_scan_step.cuh"
#include "token_product.cuh"

constexpr int kFusedThreads = kThreads;
constexpr int kFusedWarps = kFusedThreads / 32;

/// Parameters of `add_rms_norm` and of `rms_norm`, as they lie in memory.
struct AddNorm {
  const float* x;
  const void* y;
  const void* weight;
  float* sum;
  void* normed;
  float* rstd;
  int rows, width;
  long long x_pitch, y_pitch, sum_pitch, normed_pitch;
  float eps;
  int team;
};
struct Norm {
  const void* x;
  const void* z;
  const void* weight;
  void* y;
  float* rstd;
  int units, groups, size;
  long long x_pitch, z_pitch, y_pitch;
  float eps;
  int before, team;
};
template <typename N>
struct NormedProduct {
  N norm;
  Product product;
  /// x null: without. It is of the product's columns from `column` on.
  ConvStep conv;
  int column;
};

/// All rows into `left` (rows, width), in every block; the first one writes them to memory too, and what else the norm leaves.
template <typename T>
__device__ __forceinline__ void norm_rows(const AddNorm& p, T* left, float* scratch) {
  constexpr int V = kVector<T>;
  const int member = threadIdx.x % p.team;
  const bool writes = blockIdx.x == 0;
  for (int row = threadIdx.x / p.team; row < p.rows; row += kFusedThreads / p.team) {
    float held[kHeld][V];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      const int at = (member + i * p.team) * V;
      if (at < p.width) load<V>(p.x + row * p.x_pitch + at, held[i]);
    }
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      const int at = (member + i * p.team) * V;
      if (at >= p.width) continue;
      if (p.y != nullptr) {
        float more[V];
        load<V>(static_cast<const T*>(p.y) + row * p.y_pitch + at, more);
#pragma unroll
        for (int v = 0; v < V; v++) held[i][v] += more[v];
      }
      if (p.sum != nullptr && writes) store<V>(p.sum + row * p.sum_pitch + at, held[i]);
#pragma unroll
      for (int v = 0; v < V; v++) squares += held[i][v] * held[i][v];
    }
    const float r = 1.0f / sqrtf(team_sum(squares, p.team, scratch) / p.width + p.eps);
    if (member == 0 && writes && p.rstd != nullptr) p.rstd[row] = r;
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      const int at = (member + i * p.team) * V;
      if (at >= p.width) continue;
      float w[V];
      load<V>(static_cast<const T*>(p.weight) + at, w);
#pragma unroll
      for (int v = 0; v < V; v++) held[i][v] = held[i][v] * r * w[v];
      store<V>(left + row * p.width + at, held[i]);
      if (writes) store<V>(static_cast<T*>(p.normed) + row * p.normed_pitch + at, held[i]);
    }
  }
}

template <typename T>
__device__ __forceinline__ void norm_rows(const Norm& p, T* left, float* scratch) {
  constexpr int V = kVector<T>;
  const int member = threadIdx.x % p.team;
  const bool writes = blockIdx.x == 0, gated = p.z != nullptr, gate_first = gated && !p.before;
  for (int unit = threadIdx.x / p.team; unit < p.units; unit += kFusedThreads / p.team) {
    const int row = unit / p.groups, from = unit % p.groups * p.size;
    float held[kHeld][V], open[kHeld][V];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      const int at = (member + i * p.team) * V;
      if (at >= p.size) continue;
      load<V>(static_cast<const T*>(p.x) + row * p.x_pitch + from + at, held[i]);
      if (gated) load<V>(static_cast<const T*>(p.z) + row * p.z_pitch + from + at, open[i]);
    }
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      if ((member + i * p.team) * V >= p.size) continue;
#pragma unroll
      for (int v = 0; v < V; v++) {
        open[i][v] = gated ? quick_silu(open[i][v]) : 1.0f;
        if (gate_first) held[i][v] *= open[i][v], open[i][v] = 1.0f;
        squares += held[i][v] * held[i][v];
      }
    }
    const float r = 1.0f / sqrtf(team_sum(squares, p.team, scratch) / p.size + p.eps);
    if (member == 0 && writes && p.rstd != nullptr) p.rstd[unit] = r;
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      const int at = (member + i * p.team) * V;
      if (at >= p.size) continue;
      float w[V];
      load<V>(static_cast<const T*>(p.weight) + from + at, w);
#pragma unroll
      for (int v = 0; v < V; v++) held[i][v] *= r * w[v] * open[i][v];
      store<V>(left + row * p.groups * p.size + from + at, held[i]);
      if (writes) store<V>(static_cast<T*>(p.y) + row * p.y_pitch + from + at, held[i]);
    }
  }
}

/// A warp to R columns of up to M rows. The weights are on their way while every block makes the norm for itself.
/// Dynamic shared memory: the normed rows (M, k), then the block's columns (M, R kFusedWarps) as floats.
template <typename T, int M, int R, typename N>
__device__ __forceinline__ void normed_product(const NormedProduct<N>& all) {
  constexpr int V = kVector<T>, AHEAD = R == 1 ? 8 : 4, COLUMNS = R * kFusedWarps;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ float scratch[kFusedWarps];
  T* const left = reinterpret_cast<T*>(memory);
  const Product& p = all.product;
  float* const kept = reinterpret_cast<float*>(left + M * p.k);
  const int lane = threadIdx.x % 32, local = threadIdx.x / 32 * R, first = blockIdx.x * COLUMNS + local;
  const T* rows[R];
  let_next_start();
#pragma unroll
  for (int r = 0; r < R; r++) {
    rows[r] = static_cast<const T*>(p.b) + static_cast<long long>(min(first + r, p.n - 1)) * p.b_pitch;
    if (lane == r) prefetch_row(rows[r], p.k * static_cast<int>(sizeof(T)));
  }
  wait_for_previous();
  Vector<T, V> w[AHEAD][R];
  const auto read = [&](int start) {
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
#pragma unroll
      for (int r = 0; r < R; r++)
        if (start + u * 32 * V < p.k) w[u][r] = *reinterpret_cast<const Vector<T, V>*>(rows[r] + start + u * 32 * V);
  };
  read(lane * V);
  // The channel of the convolution that this thread has: a row's, of one of the block's columns.
  const int row = threadIdx.x / COLUMNS, channel = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS - all.column;
  const bool convolves = all.conv.x != nullptr && row < p.m && channel >= 0 && channel < all.conv.conv.channels;
  ConvFilter<T> filter;
  float4 past;
  if (convolves) {
    filter.load(all.conv, channel);
    past = conv_past(all.conv, row, channel);
  }
  norm_rows<T>(all.norm, left, scratch);
  __syncthreads();
  float sum[M][R];
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < R; r++) sum[i][r] = 0.0f;
  for (int start = lane * V; start < p.k; start += AHEAD * 32 * V) {
    if (start > lane * V) read(start);
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int at = start + u * 32 * V;
      if (at >= p.k) break;
#pragma unroll
      for (int i = 0; i < M; i++) {
        float x[V];
        load<V>(left + min(i, p.m - 1) * p.k + at, x);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int v = 0; v < V; v++) sum[i][r] = fmaf(x[v], to_float(w[u][r].at[v]), sum[i][r]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < R; r++) sum[i][r] = warp_sum(sum[i][r]);
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
      for (int r = 0; r < R; r++)
        if (i < p.m && first + r < p.n) kept[i * COLUMNS + local + r] = write_product<T>(p, i, first + r, sum[i][r]);
  }
  if (all.conv.x == nullptr) return;
  __syncthreads();
  if (convolves) filter.finish(all.conv, row, channel, past, kept[threadIdx.x]);
}

#define DIFFMAMBA_NORMED_PRODUCT(NAME, T, M, R)                                                                               \
  extern "C" __global__ void __launch_bounds__(kFusedThreads, 2) add_norm_product##M##x##R##_##NAME(                             \
      const __grid_constant__ NormedProduct<AddNorm> p) {                                                                     \
    normed_product<T, M, R>(p);                                                                                               \
  }                                                                                                                           \
  extern "C" __global__ void __launch_bounds__(kFusedThreads, 2) norm_product##M##x##R##_##NAME(                                 \
      const __grid_constant__ NormedProduct<Norm> p) {                                                                        \
    normed_product<T, M, R>(p);                                                                                               \
  }
#define DIFFMAMBA_NORMED_PRODUCTS(NAME, T)                                                            \
  DIFFMAMBA_NORMED_PRODUCT(NAME, T, 1, 1) DIFFMAMBA_NORMED_PRODUCT(NAME, T, 1, 2)                     \
  DIFFMAMBA_NORMED_PRODUCT(NAME, T, 2, 1) DIFFMAMBA_NORMED_PRODUCT(NAME, T, 2, 2)                     \
  DIFFMAMBA_NORMED_PRODUCT(NAME, T, 4, 2) DIFFMAMBA_NORMED_PRODUCT(NAME, T, 8, 2)
DIFFMAMBA_FLOATS(DIFFMAMBA_NORMED_PRODUCTS)

struct ProductScan {
  Product product;
  ScanForward scan;
};

/// One token: a warp makes the steps of its eight channels, as `matmul_skinny` does, and scans them. Blocks as in `selective_scan_step`.
template <typename T, int S, typename H>
__device__ __forceinline__ void product_scan(const ProductScan& all) {
  constexpr int V = kVector<T>;
  const Product& p = all.product;
  const ScanSizes& s = all.scan.s;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, b = blockIdx.y;
  const ScanBlock block(s, blockIdx.x);
  const int first = block.first + warp * 8;
  const auto weights = [&](int j) { return static_cast<const T*>(p.b) + static_cast<long long>(min(first + j, p.n - 1)) * p.b_pitch; };
  let_next_start();
  if (lane < 8) prefetch_row(weights(lane), p.k * static_cast<int>(sizeof(T)));
  else if (lane < 16 && all.scan.initial && first + lane - 8 < block.end)
    prefetch_row(static_cast<const H*>(all.scan.initial) + (static_cast<long long>(b) * s.channels + first + lane - 8) * s.d_state,
                 s.d_state * static_cast<int>(sizeof(H)));
  wait_for_previous();
  float sums[8] = {};
  for (int at = lane * V; at < p.k; at += 32 * V) {
    float x[V];
    load<V>(static_cast<const T*>(p.a) + static_cast<long long>(b) * p.a_pitch + at, x);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float w[V];
      load<V>(weights(j) + at, w);
#pragma unroll
      for (int v = 0; v < V; v++) sums[j] = fmaf(x[v], w[v], sums[j]);
    }
  }
  float own = 0.0f;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const float sum = warp_sum(sums[j]);
    own = lane % 8 == j ? sum : own;
  }
  const T delta = from_float<T>(own);
  if (lane < 8 && first + lane < block.end) static_cast<T*>(p.out)[static_cast<long long>(b) * p.out_pitch + first + lane] = delta;
  selective_scan_step<T, S, H>(all.scan, blockIdx.x, warp, b, [&](long long, int) { return to_float(delta); });
}

#define DIFFMAMBA_PRODUCT_SCAN(NAME, T, H)                                                                                      \
  extern "C" __global__ void __launch_bounds__(kScanThreads) product_scan_##NAME##_16(const __grid_constant__ ProductScan p) { \
    product_scan<T, 4, H>(p);                                                                                                  \
  }
DIFFMAMBA_STATES(DIFFMAMBA_PRODUCT_SCAN)
