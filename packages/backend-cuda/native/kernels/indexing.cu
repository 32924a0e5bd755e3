// Layer: CUDA kernels. Rows by index, their scattered sum in a fixed order, and random numbers by counter (Philox 4x32-10).
// Knows no shape rule.

#include "overlap.cuh"
#include "philox.cuh"

/// out[r] = table[index[r]]; NaN (0 of whole types) where there is no such row. V elements a thread.
template <int V, typename T>
__device__ __forceinline__ void gather_kernel(const T* table, const i32* index, T* out, int table_rows, int columns) {
  let_next_start();
  wait_for_previous();
  const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (c >= columns) return;
  const int r = blockIdx.y;
  const i32 from = index[r];
  Vector<T, V>* const to = reinterpret_cast<Vector<T, V>*>(out + static_cast<long long>(r) * columns + c);
  if (static_cast<unsigned>(from) < static_cast<unsigned>(table_rows)) {
    *to = *reinterpret_cast<const Vector<T, V>*>(table + static_cast<long long>(from) * columns + c);
  } else {
    Vector<T, V> none;
#pragma unroll
    for (int i = 0; i < V; i++) none.at[i] = from_float<T>(NAN);
    *to = none;
  }
}

/// ranks[r] += how many of a tile of 1024 rows come before row r when rows are sorted by index, those of one index in their own order.
/// A block to 256 rows and a tile; the ranks begin as zeros.
extern "C" __global__ void __launch_bounds__(256) rank_rows(const i32* index, i32* ranks, int rows) {
  __shared__ i32 tile[1024];
  const int first = blockIdx.x * 256, r = first + threadIdx.x, start = blockIdx.y * 1024;
  const i32 own = r < rows ? index[r] : 0;
  for (int i = threadIdx.x; i < 1024; i += 256) tile[i] = start + i < rows ? index[start + i] : INT32_MAX;
  __syncthreads();
  int before = 0;
  if (start + 1024 <= first) {
    // All of these rows come before this block's.
#pragma unroll 16
    for (int i = 0; i < 1024; i++) before += tile[i] <= own;
  } else if (start >= first + 256) {
#pragma unroll 16
    for (int i = 0; i < 1024; i++) before += tile[i] < own;
  } else {
    for (int i = 0; i < 1024; i++) before += tile[i] < own || (tile[i] == own && start + i < r);
  }
  if (r < rows && before > 0) atomicAdd(ranks + r, before);
}

/// sorted[rank of r] = {index of r, r}
extern "C" __global__ void sort_rows(const i32* index, const i32* ranks, int2* sorted, int rows) {
  const int r = blockIdx.x * blockDim.x + threadIdx.x;
  if (r < rows) sorted[ranks[r]] = make_int2(index[r], r);
}

/// Rows of one index up to which a warp sums them; above, a block.
constexpr int kShortRun = 32;

/// Whether a run of one index begins at this place of `sorted`, and is of an index that there is.
__device__ __forceinline__ bool begins(const int2* sorted, int place, int table_rows) {
  const i32 target = sorted[place].x;
  return static_cast<unsigned>(target) < static_cast<unsigned>(table_rows) && (place == 0 || sorted[place - 1].x != target);
}
__device__ __forceinline__ bool is_long(const int2* sorted, int place, int rows) {
  return place + kShortRun < rows && sorted[place + kShortRun].x == sorted[place].x;
}

/// out[v] (+)= the sum of the rows of src whose index is v, for the v's whose runs are short: a warp to a place.
template <int V, typename T>
__device__ __forceinline__ void scatter_short(const int2* __restrict__ sorted, const T* __restrict__ src,
                                              T* __restrict__ out, int rows, int table_rows, int columns, int accumulate) {
  const int place = blockIdx.x * 8 + threadIdx.x / 32;
  if (place >= rows || !begins(sorted, place, table_rows) || is_long(sorted, place, rows)) return;
  const int lane = threadIdx.x % 32;
  const i32 target = sorted[place].x;
  const int2 own = place + lane < rows ? sorted[place + lane] : make_int2(-1, 0);
  const int count = __popc(__ballot_sync(kFullMask, own.x == target));
  T* const to = out + static_cast<long long>(target) * columns;
  for (int c = lane * V; c < (columns + 32 * V - 1) / (32 * V) * (32 * V); c += 32 * V) {
    float sum[V];
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] = 0.0f;
    if (accumulate && c < columns) load<V>(to + c, sum);
#pragma unroll 4
    for (int p = 0; p < count; p++) {
      const int r = __shfl_sync(kFullMask, own.y, p);
      float x[V];
      if (c >= columns) continue;
      load<V>(src + static_cast<long long>(r) * columns + c, x);
#pragma unroll
      for (int i = 0; i < V; i++) sum[i] += x[i];
    }
    if (c < columns) store<V>(to + c, sum);
  }
}

/// The same for the runs that are longer, of which at most one begins in 32 places: a block of 32 x 8 to them; each row of threads sums
/// every eighth row, then the eight in order.
template <int V, typename T>
__device__ __forceinline__ void scatter_long(const int2* __restrict__ sorted, const T* __restrict__ src,
                                             T* __restrict__ out, int rows, int table_rows, int columns, int accumulate) {
  __shared__ float parts[8][32][V];
  const int asked = blockIdx.x * kShortRun + threadIdx.x;
  const bool found = asked < rows && is_long(sorted, asked, rows) && begins(sorted, asked, table_rows);
  const unsigned which_lanes = __ballot_sync(kFullMask, found);
  if (which_lanes == 0) return;
  const int place = blockIdx.x * kShortRun + __ffs(which_lanes) - 1;
  const i32 target = sorted[place].x;
  const int c = (blockIdx.y * 32 + threadIdx.x) * V;
  float sum[V];
#pragma unroll
  for (int i = 0; i < V; i++) sum[i] = 0.0f;
  bool more = c < columns;
  for (int p = place + threadIdx.y; more; p += 32) {
    // Four rows are under way at once.
    int2 which[4];
    float x[4][V];
#pragma unroll
    for (int u = 0; u < 4; u++) which[u] = p + 8 * u < rows ? sorted[p + 8 * u] : make_int2(-1, 0);
#pragma unroll
    for (int u = 0; u < 4; u++) {
#pragma unroll
      for (int i = 0; i < V; i++) x[u][i] = 0.0f;
      if (which[u].x == target) load<V>(src + static_cast<long long>(which[u].y) * columns + c, x[u]);
    }
#pragma unroll
    for (int u = 0; u < 4; u++)
#pragma unroll
      for (int i = 0; i < V; i++) sum[i] += x[u][i];
    more = which[3].x == target;
  }
#pragma unroll
  for (int i = 0; i < V; i++) parts[threadIdx.y][threadIdx.x][i] = sum[i];
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  T* const to = out + static_cast<long long>(target) * columns + c;
  float before[V];
#pragma unroll
  for (int i = 0; i < V; i++) before[i] = 0.0f;
  if (accumulate) load<V>(to, before);
#pragma unroll
  for (int i = 0; i < V; i++) {
    for (int t = 0; t < 8; t++) before[i] += parts[t][threadIdx.x][i];
  }
  store<V>(to, before);
}

#define DIFFMAMBA_GATHER(NAME, T, V)                                                                                  \
  extern "C" __global__ void gather_##NAME##_v##V(const T* table, const i32* index, T* out, int table_rows,           \
                                                  int columns) {                                                      \
    gather_kernel<V>(table, index, out, table_rows, columns);                                                         \
  }
DIFFMAMBA_GATHER(f32, f32, 4) DIFFMAMBA_GATHER(bf16, bf16, 8) DIFFMAMBA_GATHER(f16, f16, 8)
DIFFMAMBA_GATHER(i32, i32, 4) DIFFMAMBA_GATHER(u8, u8, 16)
DIFFMAMBA_GATHER(f32, f32, 1) DIFFMAMBA_GATHER(bf16, bf16, 1) DIFFMAMBA_GATHER(f16, f16, 1)
DIFFMAMBA_GATHER(i32, i32, 1) DIFFMAMBA_GATHER(u8, u8, 1)

#define DIFFMAMBA_SCATTER(NAME, T, V)                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) scatter_short_##NAME##_v##V(                                      \
      const int2* sorted, const T* src, T* out, int rows, int table_rows, int columns, int accumulate) {              \
    scatter_short<V>(sorted, src, out, rows, table_rows, columns, accumulate);                                        \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) scatter_long_##NAME##_v##V(                                       \
      const int2* sorted, const T* src, T* out, int rows, int table_rows, int columns, int accumulate) {              \
    scatter_long<V>(sorted, src, out, rows, table_rows, columns, accumulate);                                         \
  }
DIFFMAMBA_SCATTER(f32, f32, 4) DIFFMAMBA_SCATTER(bf16, bf16, 8) DIFFMAMBA_SCATTER(f16, f16, 8)
DIFFMAMBA_SCATTER(f32, f32, 1) DIFFMAMBA_SCATTER(bf16, bf16, 1) DIFFMAMBA_SCATTER(f16, f16, 1)

/// Four elements a thread: i32 words or, for `keep`, u8: 1 where the word is at least `threshold`.
template <typename T>
__device__ __forceinline__ void random_kernel(T* out, const i32* step, uint32_t key0, uint32_t key1, uint32_t threshold,
                                              int keep, int count) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (4LL * i >= count) return;
  const uint4 words = philox(make_uint4(i, 0, static_cast<uint32_t>(*step), 0), make_uint2(key0, key1));
  const uint32_t four[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int k = 0; k < 4; k++) {
    if (4 * i + k >= static_cast<uint32_t>(count)) return;
    out[4LL * i + k] = keep ? static_cast<T>(four[k] >= threshold) : static_cast<T>(four[k]);
  }
}

extern "C" __global__ void random_i32(i32* out, const i32* step, uint32_t key0, uint32_t key1, uint32_t threshold,
                                      int keep, int count) {
  random_kernel(out, step, key0, key1, threshold, keep, count);
}
extern "C" __global__ void random_u8(u8* out, const i32* step, uint32_t key0, uint32_t key1, uint32_t threshold,
                                     int keep, int count) {
  random_kernel(out, step, key0, key1, threshold, keep, count);
}
