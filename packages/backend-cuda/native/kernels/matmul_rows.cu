// Layer: CUDA kernels. The matrix product of a token of 9 to 64 rows in 16 bits, on tensor cores: a block has all rows of a few columns, and
// its warps share k, so that the weights are read once, all at the same time; with it goes the convolution of some of the columns, and half a
// norm before or after it. Sums are f32, in an order that follows from the shape. Where k is short, each lane has an element. Knows no model.

#include "conv_step.cuh"
#include "half_products.cuh"
#include "overlap.cuh"
#include "rows_norm.cuh"
#include "token_product.cuh"

constexpr int kRowsWarps = kRowsThreads / 32;
/// Columns of a block.
constexpr int kRowsColumns = 32;
/// Elements of k of a piece: 8 to each of four lanes.
constexpr int kRowsPiece = 32;

struct RowsProduct {
  Product product;
  /// x null: without. It is of the product's columns from `column` on.
  ConvStep conv;
  int column, unused;
  RowsNorm norm;
  RowsAdd add;
};

/// Eight elements of a line, as tensor cores take them: two in a word.
struct alignas(16) Eight {
  uint32_t at[4];
};

/// Zeros where it is not there. Keeps its place among the others: compilers would rather wait for one before they order the next.
__device__ __forceinline__ Eight read_eight(const void* from, bool there) {
  Eight x;
  asm volatile(
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %5, 0;\n\tmov.b32 %0, 0;\n\tmov.b32 %1, 0;\n\tmov.b32 %2, 0;\n\tmov.b32 %3, 0;\n\t"
      "@p ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "=&r"(x.at[0]), "=&r"(x.at[1]), "=&r"(x.at[2]), "=&r"(x.at[3])
      : "l"(from), "r"(static_cast<int>(there))
      : "memory");
  return x;
}

// Blocks that share k are a cluster; devices without them let the first of the blocks do it all.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTER_OF(n) __cluster_dims__(n, 1, 1)
constexpr bool kClusters = true;
#else
#define CLUSTER_OF(n)
constexpr bool kClusters = false;
#endif

/// The two halves of a barrier of all threads of a cluster.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// Where the shared memory of block `rank` of a cluster has what `own` is here.
__device__ __forceinline__ uint32_t of_block(const float* own, int rank) {
  uint32_t at = shared_address(own);
#if __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(own)), "r"(rank));
#endif
  return at;
}
__device__ __forceinline__ float load_of_block(uint32_t from) {
  float x;
#if __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
#else
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
#endif
  return x;
}

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows: up to 16 TALL rows, and SPLIT blocks share k. All lines are aligned to 16
/// bytes and k is a multiple of 8. A warp has half of the rows, where they are more than 16, and every so many pieces of k, all of which are
/// on their way at once. A lane reads 8 elements of a line; which elements of k stand at which place of the unit is the same for both sides,
/// and so does not matter. Dynamic shared memory: the warps' sums, and the block's.
template <typename T, int TALL, int SPLIT>
__device__ __forceinline__ void rows_product(const RowsProduct& all) {
  constexpr int COLUMNS = kRowsColumns;
  constexpr int PARTS = kClusters ? SPLIT : 1, ROWS = 16 * TALL, HALVES = TALL > 1 ? 2 : 1, TILES = TALL / HALVES;
  constexpr int GROUPS = kRowsWarps / HALVES, WIDE = COLUMNS / 8, PITCH = COLUMNS + 8, AHEAD = SPLIT > 1 ? 4 : TILES > 1 ? 6 : 4;
  extern __shared__ __align__(16) unsigned char memory[];
  float* const parts = reinterpret_cast<float*>(memory);
  const Product& p = all.product;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, line = lane / 4, half = warp % HALVES, group = warp / HALVES;
  const int rank = blockIdx.x % SPLIT, tile = blockIdx.x / SPLIT, tiles = gridDim.x / SPLIT, first = tile * COLUMNS;
  if (rank >= PARTS) return;
  // This block's part of k.
  const int depth = (p.k + PARTS * kRowsPiece - 1) / (PARTS * kRowsPiece) * kRowsPiece, begin = rank * depth, end = min(begin + depth, p.k);
  let_next_start();
  if (threadIdx.x < COLUMNS && first + static_cast<int>(threadIdx.x) < p.n && begin < end) {
    prefetch_row(static_cast<const T*>(p.b) + static_cast<long long>(first + threadIdx.x) * p.b_pitch + begin,
                 (end - begin) * static_cast<int>(sizeof(T)));
  }
  const int from = max(first, all.column), convolved = min(first + COLUMNS, all.column + all.conv.conv.channels) - from;
  if (all.conv.x != nullptr && all.conv.initial != nullptr && convolved > 0 && static_cast<int>(threadIdx.x) < p.m && rank == 0) {
    prefetch_row(all.conv.initial + 4 * (static_cast<long long>(threadIdx.x) * all.conv.conv.channels + from - all.column), 16 * convolved);
  }
  const T* left[2 * TILES];
  const T* right[WIDE];
#pragma unroll
  for (int i = 0; i < 2 * TILES; i++)
    left[i] = static_cast<const T*>(p.a) + static_cast<long long>(min(16 * TILES * half + 8 * i + line, p.m - 1)) * p.a_pitch;
#pragma unroll
  for (int j = 0; j < WIDE; j++) right[j] = static_cast<const T*>(p.b) + static_cast<long long>(min(first + 8 * j + line, p.n - 1)) * p.b_pitch;
  float sum[TILES][WIDE][4] = {};
  // The elements that this thread finishes, of those that the cluster's blocks have sums of: EACH, in one column.
  constexpr int OWN = ROWS / PARTS, LINES = kRowsThreads / COLUMNS, EACH = (OWN + LINES - 1) / LINES;
  const int local = threadIdx.x % COLUMNS, top = threadIdx.x / COLUMNS, column = first + local, channel = column - all.column;
  const auto row_of = [&](int e) { return rank * OWN + top + e * LINES; };
  const auto is_row = [&](int e) { return top + e * LINES < OWN && row_of(e) < p.m; };
  const auto is_own = [&](int e) { return is_row(e) && column < p.n; };
  const bool convolves = column < p.n && all.conv.x != nullptr && channel >= 0 && channel < all.conv.conv.channels;
  wait_for_previous();
  // What is needed in the end is on its way first.
  const bool normed = all.norm.squares != nullptr, adds = all.add.x != nullptr;
  RowSquares squares;
  float4 unnormed = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int unit = PARTS > 1 ? blockIdx.x : tile, units = PARTS > 1 ? gridDim.x : tiles;
  const auto read_row = [&](int row) {
    RowsNorm norm = all.norm;
    if (norm.sums) norm.sums += row * p.k;
    return read_unnormed(norm, static_cast<const T*>(p.a) + static_cast<long long>(row) * p.a_pitch, p.k);
  };
  float old[EACH];
  if (normed) {
    squares.read(all.norm, min(static_cast<int>(threadIdx.x) / 4, p.m - 1));
    if (unit < p.m) unnormed = read_row(unit);
  }
  if (adds) {
#pragma unroll
    for (int e = 0; e < EACH; e++)
      old[e] = is_own(e) ? read_early(all.add.x + static_cast<long long>(row_of(e)) * all.add.x_pitch + column) : 0.0f;
  }
  for (int start = begin + group * kRowsPiece; start < end; start += AHEAD * GROUPS * kRowsPiece) {
    Eight a[AHEAD][2 * TILES], b[AHEAD][WIDE];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int at = start + lane % 4 * 8 + u * GROUPS * kRowsPiece;
#pragma unroll
      for (int j = 0; j < WIDE; j++) b[u][j] = read_eight(right[j] + at, at < end);
#pragma unroll
      for (int i = 0; i < 2 * TILES; i++) a[u][i] = read_eight(left[i] + at, at < end);
    }
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
#pragma unroll
      for (int s = 0; s < 4; s += 2)
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
          for (int j = 0; j < WIDE; j++)
            multiply<T>(sum[i][j], HalfA{a[u][2 * i].at[s], a[u][2 * i + 1].at[s], a[u][2 * i].at[s + 1], a[u][2 * i + 1].at[s + 1]},
                        HalfB{b[u][j].at[s], b[u][j].at[s + 1]});
  }
#pragma unroll
  for (int i = 0; i < TILES; i++)
#pragma unroll
    for (int j = 0; j < WIDE; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int row = 16 * (TILES * half + i) + 8 * h + line;
        *reinterpret_cast<float2*>(parts + (group * ROWS + row) * PITCH + 8 * j + lane % 4 * 2) =
            make_float2(sum[i][j][2 * h], sum[i][j][2 * h + 1]);
      }
  // What the convolution needs is on its way for all of a thread's elements before the first is written.
  ConvChannel conv[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++)
    if (convolves && is_row(e)) conv[e].template load<T>(all.conv, row_of(e), channel);
  __shared__ float scales[ROWS];
  if (normed) {
    const float scale = squares.scale(all.norm, p.k);
    if (threadIdx.x / 4 < ROWS && threadIdx.x % 4 == 0) scales[threadIdx.x / 4] = scale;
  }
  __syncthreads();
  const auto block_sum_of = [&](int row) {
    float x = 0.0f;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) x += parts[(g * ROWS + row) * PITCH + local];
    return x;
  };
  float got[EACH][PARTS];
  if (PARTS > 1) {
    float* const totals = parts + GROUPS * ROWS * PITCH;
    for (int row = top; row < ROWS; row += LINES) totals[row * COLUMNS + local] = block_sum_of(row);
    cluster_arrive();
    cluster_wait();
    // All of them at once: each takes its time.
#pragma unroll
    for (int r = 0; r < PARTS; r++) {
      const uint32_t from = of_block(totals, r);
#pragma unroll
      for (int e = 0; e < EACH; e++) got[e][r] = load_of_block(from + 4 * (min(row_of(e), ROWS - 1) * COLUMNS + local));
    }
    // What others still read must not go: they say so here, and are waited for in the end.
    cluster_arrive();
  } else {
#pragma unroll
    for (int e = 0; e < EACH; e++) got[e][0] = block_sum_of(min(row_of(e), ROWS - 1));
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int row = row_of(e);
    float square = 0.0f;
    if (is_own(e)) {
      float x = 0.0f;
#pragma unroll
      for (int r = 0; r < PARTS; r++) x += got[e][r];
      if (normed) x *= scales[row];
      x = write_product<T>(p, row, column, x);
      if (convolves) conv[e].template finish<T>(all.conv, row, channel, x);
      if (adds) {
        const long long at = static_cast<long long>(row) * p.n + column;
        const float y = old[e] + x;
        all.add.sums[at] = y;
        static_cast<T*>(all.add.scaled)[at] = from_float<T>(y * to_float(static_cast<const T*>(all.add.weight)[column]));
        square = y * y;
      }
    }
    // A warp has all columns of a row.
    if (adds) {
      square = warp_sum(square);
      if (lane == 0 && is_row(e)) all.add.squares[row * tiles + tile] = square;
    }
  }
  if (normed) {
    for (int row = unit; row < p.m; row += units) {
      if (row != unit) unnormed = read_row(row);
      write_normed<T>(all.norm, row, p.k, unnormed, scales[row]);
    }
  }
  __syncwarp();
  if (PARTS > 1) cluster_wait();
}

/// Where k is at most 64: a lane has an element of `out`, a warp eight columns of four rows. Blocks: 32 columns, four rows along y.
template <typename T>
__device__ __forceinline__ void shallow_product(const Product& p) {
  const int lane = threadIdx.x % 32, column = blockIdx.x * kRowsColumns + threadIdx.x / 32 * 8 + lane % 8, row = blockIdx.y * 4 + lane / 8;
  let_next_start();
  wait_for_previous();
  if (column < p.n && row < p.m) write_product<T>(p, row, column, shallow_dot<T>(p, row, column));
}

// A block has a multiprocessor to itself, and registers for all that it reads.
#define DIFFMAMBA_ROWS(NAME, T, TALL)                                                                                              \
  extern "C" __global__ void __launch_bounds__(kRowsThreads, 1) matmul_rows##TALL##x1_##NAME(const __grid_constant__ RowsProduct p) { \
    rows_product<T, TALL, 1>(p);                                                                                                   \
  }                                                                                                                                \
  extern "C" __global__ void __launch_bounds__(kRowsThreads, 1) CLUSTER_OF(4)                                                        \
      matmul_rows##TALL##x4_##NAME(const __grid_constant__ RowsProduct p) {                                                        \
    rows_product<T, TALL, 4>(p);                                                                                                   \
  }
#define DIFFMAMBA_ROWS_ALL(NAME, T) DIFFMAMBA_ROWS(NAME, T, 1) DIFFMAMBA_ROWS(NAME, T, 2) DIFFMAMBA_ROWS(NAME, T, 4)
DIFFMAMBA_ROWS_ALL(bf16, bf16)
DIFFMAMBA_ROWS_ALL(f16, f16)

#define DIFFMAMBA_SHALLOW(NAME, T)                                                                               \
  extern "C" __global__ void __launch_bounds__(128) matmul_shallow_##NAME(const __grid_constant__ Product p) {    \
    shallow_product<T>(p);                                                                                       \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_SHALLOW)
