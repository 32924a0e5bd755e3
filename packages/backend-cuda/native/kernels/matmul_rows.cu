// Layer: CUDA kernels. The matrix product of a token of 9 to 64 rows in 16 bits, on tensor cores: a block has all rows of some columns, and
// the blocks of a cluster share k, so that the whole device reads the weights at once; with it goes the convolution of some of the columns,
// and half a norm before or after it. Sums are f32, in an order that follows from the shape. Where k is short, each lane has an element.
// Knows no model.

#include "conv_step.cuh"
#include "half_products.cuh"
#include "overlap.cuh"
#include "rows_norm.cuh"
#include "token_product.cuh"

constexpr int kRowsWarps = kRowsThreads / 32;
/// Elements of k of a piece, all of which but one are on their way at a time, and of a line of it in shared memory.
constexpr int kRowsPiece = 64;
constexpr int kRowsLine = kRowsPiece + 8;

struct RowsProduct {
  Product product;
  /// x null: without. It is of the product's columns from `column` on.
  ConvStep conv;
  int column, unused;
  RowsNorm norm;
  RowsAdd add;
};

// Blocks that share k are a cluster; devices without them let the first of the blocks do it all.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTER_OF(n) __cluster_dims__(n, 1, 1)
constexpr bool kClusters = true;
#else
#define CLUSTER_OF(n)
constexpr bool kClusters = false;
#endif

__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
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

/// How a block of so many rows and columns is shared out: pieces that there is memory for, and warps along rows, columns and k.
template <int ROWS, int COLUMNS>
struct RowsBlock {
  static constexpr int kPieces = COLUMNS > 64 ? 4 : 6;
  static constexpr int kWide = COLUMNS > 64 ? kRowsWarps / (ROWS > 16 ? 2 : 1) : 2;
  static constexpr int kTall = COLUMNS > 64 ? kRowsWarps / kWide : ROWS / 16;
  static constexpr int kGroups = kRowsWarps / kWide / kTall;
  /// Tiles of 16 rows, and pairs of tiles of 8 columns, of a warp.
  static constexpr int kTiles = ROWS / 16 / kTall, kPairs = COLUMNS / 16 / kWide;
  /// Lines of a piece, and floats of a line of sums.
  static constexpr int kLines = ROWS + COLUMNS, kPitch = COLUMNS + 8;
  static_assert(4 * kGroups * ROWS * kPitch <= 2 * kPieces * kLines * kRowsLine, "sums lie where pieces were");
};

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows: up to 16 TALL rows, and SPLIT blocks share k. All lines are aligned to 16
/// bytes and k is a multiple of 8. Dynamic shared memory: pieces of both sides, and then the warps' sums.
template <typename T, int TALL, int SPLIT, int COLUMNS>
__device__ __forceinline__ void rows_product(const RowsProduct& all) {
  constexpr int PARTS = kClusters ? SPLIT : 1, ROWS = 16 * TALL;
  typedef RowsBlock<ROWS, COLUMNS> Shape;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ float scales[ROWS];
  T* const pieces = reinterpret_cast<T*>(memory);
  float* const sums = reinterpret_cast<float*>(memory);
  const Product& p = all.product;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int rank = blockIdx.x % SPLIT, tile = blockIdx.x / SPLIT, tiles = gridDim.x / SPLIT, first = tile * COLUMNS;
  if (rank >= PARTS) return;
  // This block's part of k.
  const int depth = (p.k + PARTS * kRowsPiece - 1) / (PARTS * kRowsPiece) * kRowsPiece, begin = rank * depth, end = min(begin + depth, p.k);
  const int count = max(end - begin + kRowsPiece - 1, 0) / kRowsPiece;
  let_next_start();
  if (thread < COLUMNS && first + thread < p.n && begin < end) {
    prefetch_row(static_cast<const T*>(p.b) + static_cast<long long>(first + thread) * p.b_pitch + begin,
                 (end - begin) * static_cast<int>(sizeof(T)));
  }
  const int from = max(first, all.column), convolved = min(first + COLUMNS, all.column + all.conv.conv.channels) - from;
  if (all.conv.x != nullptr && all.conv.initial != nullptr && convolved > 0 && thread < p.m && rank == 0) {
    prefetch_row(all.conv.initial + 4 * (static_cast<long long>(thread) * all.conv.conv.channels + from - all.column), 16 * convolved);
  }
  wait_for_previous();

  // A thread copies 16 bytes of every so many lines.
  constexpr int vectors = kRowsPiece / 8, step = kRowsThreads / vectors;
  const auto copy_piece = [&](int piece) {
    const int k = begin + piece * kRowsPiece + thread % vectors * 8;
    T* const to = pieces + piece % Shape::kPieces * Shape::kLines * kRowsLine + thread % vectors * 8;
#pragma unroll
    for (int i = 0; i < (Shape::kLines + step - 1) / step; i++) {
      const int line = thread / vectors + i * step, column = first + line - ROWS;
      if (Shape::kLines % step != 0 && line >= Shape::kLines) break;
      const bool left = line < ROWS, there = k < end && (left ? line < p.m : column < p.n);
      const T* const row = left ? static_cast<const T*>(p.a) + static_cast<long long>(line) * p.a_pitch
                                : static_cast<const T*>(p.b) + static_cast<long long>(column) * p.b_pitch;
      copy_16(to + line * kRowsLine, there ? row + k : static_cast<const T*>(p.a), there ? 16 : 0);
    }
  };
#pragma unroll
  for (int i = 0; i < Shape::kPieces - 1; i++) {
    if (i < count) copy_piece(i);
    close_copies();
  }

  // What is needed in the end is on its way meanwhile. This thread finishes EACH elements, in one column, of those that the cluster's blocks
  // have sums of.
  constexpr int OWN = ROWS / PARTS, LINES = kRowsThreads / COLUMNS, EACH = (OWN + LINES - 1) / LINES;
  const int local = thread % COLUMNS, column = first + local, channel = column - all.column;
  const auto row_of = [&](int e) { return rank * OWN + thread / COLUMNS + e * LINES; };
  const auto is_row = [&](int e) { return thread / COLUMNS + e * LINES < OWN && row_of(e) < p.m; };
  const bool normed = all.norm.squares != nullptr, adds = COLUMNS == 32 && all.add.x != nullptr;
  const bool convolves = column < p.n && all.conv.x != nullptr && channel >= 0 && channel < all.conv.conv.channels;
  const int unit = PARTS > 1 ? blockIdx.x : tile, units = PARTS > 1 ? gridDim.x : tiles;
  RowSquares squares;
  float4 own_sums = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (normed) {
    squares.read(all.norm, min(thread / 4, p.m - 1));
    if (unit < p.m && 4 * thread < p.k) own_sums = read_early4(all.norm.sums + unit * p.k + 4 * thread);
  }
  float old[EACH];
  ConvChannel conv[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const bool is_own = is_row(e) && column < p.n;
    old[e] = adds && is_own ? read_early(all.add.x + static_cast<long long>(row_of(e)) * all.add.x_pitch + column) : 0.0f;
    if (convolves && is_own) conv[e].template load<T>(all.conv, row_of(e), channel);
  }

  const int wide = warp % Shape::kWide, tall = warp / Shape::kWide % Shape::kTall, group = warp / Shape::kWide / Shape::kTall;
  float sum[Shape::kTiles][Shape::kPairs][2][4] = {};
  for (int piece = 0; piece < count; piece++) {
    wait_copies<Shape::kPieces - 2>();
    __syncthreads();
    if (piece + Shape::kPieces - 1 < count) copy_piece(piece + Shape::kPieces - 1);
    close_copies();
    const T* const left = pieces + piece % Shape::kPieces * Shape::kLines * kRowsLine + 16 * Shape::kTiles * tall * kRowsLine;
    const T* const right = pieces + piece % Shape::kPieces * Shape::kLines * kRowsLine + (ROWS + 16 * Shape::kPairs * wide) * kRowsLine;
#pragma unroll
    for (int s = 0; s < kRowsPiece / 16; s += Shape::kGroups) {
      const int k = 16 * (s + group);
      if (kRowsPiece / 16 % Shape::kGroups != 0 && k >= kRowsPiece) break;
      HalfA a[Shape::kTiles];
      HalfB b[Shape::kPairs][2];
#pragma unroll
      for (int i = 0; i < Shape::kTiles; i++) load_a(a[i], left + 16 * i * kRowsLine + k, kRowsLine);
#pragma unroll
      for (int j = 0; j < Shape::kPairs; j++) load_b(b[j], right + 16 * j * kRowsLine + k, kRowsLine);
#pragma unroll
      for (int i = 0; i < Shape::kTiles; i++)
#pragma unroll
        for (int j = 0; j < Shape::kPairs; j++)
#pragma unroll
          for (int h = 0; h < 2; h++) multiply<T>(sum[i][j][h], a[i], b[j][h]);
    }
  }
  wait_copies<0>();
  __syncthreads();
#pragma unroll
  for (int i = 0; i < Shape::kTiles; i++)
#pragma unroll
    for (int j = 0; j < Shape::kPairs; j++)
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int row = 16 * (Shape::kTiles * tall + i) + 8 * half + lane / 4, at = 16 * (Shape::kPairs * wide + j) + 8 * h + lane % 4 * 2;
          *reinterpret_cast<float2*>(sums + (group * ROWS + row) * Shape::kPitch + at) =
              make_float2(sum[i][j][h][2 * half], sum[i][j][h][2 * half + 1]);
        }
  if (normed) {
    const float scale = squares.scale(all.norm, p.k);
    if (thread / 4 < ROWS && thread % 4 == 0) scales[thread / 4] = scale;
  }
  __syncthreads();
  if (PARTS > 1) cluster_sync();
  // All of them at once: each takes its time.
  float got[EACH][PARTS * Shape::kGroups];
#pragma unroll
  for (int r = 0; r < PARTS; r++) {
    const uint32_t from = of_block(sums + local, r);
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
      for (int g = 0; g < Shape::kGroups; g++)
        got[e][r * Shape::kGroups + g] = load_of_block(from + 4 * (g * ROWS + min(row_of(e), ROWS - 1)) * Shape::kPitch);
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int row = row_of(e);
    float square = 0.0f;
    if (is_row(e) && column < p.n) {
      float x = 0.0f;
#pragma unroll
      for (int i = 0; i < PARTS * Shape::kGroups; i++) x += got[e][i];
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
      if (row != unit && 4 * thread < p.k) own_sums = read_early4(all.norm.sums + row * p.k + 4 * thread);
      write_normed<T>(all.norm, row, p.k, own_sums, scales[row]);
    }
  }
  // What others still read must not go.
  if (PARTS > 1) cluster_sync();
}

/// Where k is at most 64: a lane has an element of `out`, a warp eight columns of four rows. Blocks: 32 columns, four rows along y.
template <typename T>
__device__ __forceinline__ void shallow_product(const Product& p) {
  const int lane = threadIdx.x % 32, column = blockIdx.x * 32 + threadIdx.x / 32 * 8 + lane % 8, row = blockIdx.y * 4 + lane / 8;
  let_next_start();
  wait_for_previous();
  if (column < p.n && row < p.m) write_product<T>(p, row, column, shallow_dot<T>(p, row, column));
}

#define DIFFMAMBA_ROWS(KERNEL, CLUSTER, T, TALL, SPLIT, COLUMNS)                                                    \
  extern "C" __global__ void __launch_bounds__(kRowsThreads, 2) CLUSTER KERNEL(const __grid_constant__ RowsProduct p) { \
    rows_product<T, TALL, SPLIT, COLUMNS>(p);                                                                       \
  }
#define DIFFMAMBA_ROWS_SPLIT(NAME, T, TALL)                                                 \
  DIFFMAMBA_ROWS(matmul_rows##TALL##x1_##NAME, , T, TALL, 1, 32)                            \
  DIFFMAMBA_ROWS(matmul_rows##TALL##x4_##NAME, CLUSTER_OF(4), T, TALL, 4, 32)               \
  DIFFMAMBA_ROWS(matmul_rows##TALL##x8_##NAME, CLUSTER_OF(8), T, TALL, 8, 32)               \
  DIFFMAMBA_ROWS(matmul_wide_rows##TALL##x4_##NAME, CLUSTER_OF(4), T, TALL, 4, 128)
#define DIFFMAMBA_ROWS_ALL(NAME, T) DIFFMAMBA_ROWS_SPLIT(NAME, T, 1) DIFFMAMBA_ROWS_SPLIT(NAME, T, 2) DIFFMAMBA_ROWS_SPLIT(NAME, T, 4)
DIFFMAMBA_ROWS_ALL(bf16, bf16)
DIFFMAMBA_ROWS_ALL(f16, f16)

#define DIFFMAMBA_SHALLOW(NAME, T)                                                                               \
  extern "C" __global__ void __launch_bounds__(128) matmul_shallow_##NAME(const __grid_constant__ Product p) {    \
    shallow_product<T>(p);                                                                                       \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_SHALLOW)
