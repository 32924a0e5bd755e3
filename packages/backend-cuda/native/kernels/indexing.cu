// Layer: CUDA kernels. Rows by index, their scattered sum in a fixed order, and random numbers by counter (Philox 4x32-10).
// Knows no shape rule.

#include "common.cuh"

/// out[r] = table[index[r]]; NaN (0 of whole types) where there is no such row. V elements a thread.
template <int V, typename T>
__device__ __forceinline__ void gather_kernel(const T* table, const i32* index, T* out, int table_rows, int columns) {
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

/// order[p] = the row at place p when rows are sorted by index, those of one index in their own order. `rows` of them.
extern "C" __global__ void __launch_bounds__(256) sort_rows(const i32* index, i32* order, int rows) {
  __shared__ i32 tile[1024];
  const int r = blockIdx.x * 256 + threadIdx.x;
  const i32 own = r < rows ? index[r] : 0;
  int before = 0;
  for (int start = 0; start < rows; start += 1024) {
    __syncthreads();
    for (int i = threadIdx.x; i < 1024; i += 256) tile[i] = start + i < rows ? index[start + i] : INT32_MAX;
    __syncthreads();
    if (start + 1024 <= blockIdx.x * 256) {
      // All of these rows come before this block's.
#pragma unroll 16
      for (int i = 0; i < 1024; i++) before += tile[i] <= own;
    } else if (start >= (blockIdx.x + 1) * 256) {
#pragma unroll 16
      for (int i = 0; i < 1024; i++) before += tile[i] < own;
    } else {
      for (int i = 0; i < 1024; i++) before += tile[i] < own || (tile[i] == own && start + i < r);
    }
  }
  if (r < rows) order[before] = r;
}

/// out[v] (+)= the sum of the rows of src whose index is v, for the v's that there are. A block of 32 x 4 to a place in `order`; those
/// that begin a run of one index sum it: each row of threads every fourth row, then the four in order.
template <int V, typename T>
__device__ __forceinline__ void scatter_kernel(const i32* index, const i32* order, const T* src, T* out, int rows,
                                               int table_rows, int columns, int accumulate) {
  __shared__ float parts[4][32][V];
  const int place = blockIdx.x;
  const i32 target = index[order[place]];
  if (place > 0 && index[order[place - 1]] == target) return;
  if (static_cast<unsigned>(target) >= static_cast<unsigned>(table_rows)) return;
  const int c = (blockIdx.y * 32 + threadIdx.x) * V;
  float sum[V];
#pragma unroll
  for (int i = 0; i < V; i++) sum[i] = 0.0f;
  for (int p = place + threadIdx.y; p < rows; p += 4) {
    const i32 r = order[p];
    if (index[r] != target) break;
    if (c >= columns) continue;
    float x[V];
    load<V>(src + static_cast<long long>(r) * columns + c, x);
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] += x[i];
  }
#pragma unroll
  for (int i = 0; i < V; i++) parts[threadIdx.y][threadIdx.x][i] = sum[i];
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  T* const to = out + static_cast<long long>(target) * columns + c;
  float before[V];
  if (accumulate) load<V>(to, before);
#pragma unroll
  for (int i = 0; i < V; i++) {
    sum[i] = (sum[i] + parts[1][threadIdx.x][i]) + (parts[2][threadIdx.x][i] + parts[3][threadIdx.x][i]);
    if (accumulate) sum[i] += before[i];
  }
  store<V>(to, sum);
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
  extern "C" __global__ void __launch_bounds__(128) scatter_add_##NAME##_v##V(                                        \
      const i32* index, const i32* order, const T* src, T* out, int rows, int table_rows, int columns,                \
      int accumulate) {                                                                                               \
    scatter_kernel<V>(index, order, src, out, rows, table_rows, columns, accumulate);                                 \
  }
DIFFMAMBA_SCATTER(f32, f32, 4) DIFFMAMBA_SCATTER(bf16, bf16, 8) DIFFMAMBA_SCATTER(f16, f16, 8)
DIFFMAMBA_SCATTER(f32, f32, 1) DIFFMAMBA_SCATTER(bf16, bf16, 1) DIFFMAMBA_SCATTER(f16, f16, 1)

/// Four 32-bit words from a counter and a key (Salmon et al. 2011).
__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xd2511f53u, counter.x), low0 = 0xd2511f53u * counter.x;
    const uint32_t high1 = __umulhi(0xcd9e8d57u, counter.z), low1 = 0xcd9e8d57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9e3779b9u;
    key.y += 0xbb67ae85u;
  }
  return counter;
}

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
