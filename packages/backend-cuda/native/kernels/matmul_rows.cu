// Layer: CUDA kernels. The matrix product of a token of 9 to 64 rows in 16 bits, on tensor cores: a block has all rows of a few columns, and
// its warps share k, so that the weights are read once, all at the same time; with it goes the convolution of some of the columns, and half a
// norm before or after it. Sums are f32, in an order that follows from the shape. Where k is short, each lane has an element. Knows no model.

#include "conv_step.cuh"
#include "half_products.cuh"
#include "overlap.cuh"
#include "rows_norm.cuh"
#include "token_product.cuh"

constexpr int kRowsWarps = kRowsThreads / 32;
/// Columns of a block, and of one part of the squares of a row; pieces of k that are on their way at a time.
constexpr int kRowsColumns = 32;
constexpr int kRowsStages = 6;

struct RowsProduct {
  Product product;
  /// x null: without. It is of the product's columns from `column` on.
  ConvStep conv;
  int column;
  /// Whether b may be read before the kernel before has ended.
  int early;
  RowsNorm norm;
  RowsAdd add;
};

// Blocks that share k are a cluster; src/kernels/matmul.ts asks for them where devices have such.
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

/// A block's part of k, in pieces of DEEP elements that come to a ring of kRowsStages in shared memory: ROWS lines of a, then COLUMNS of b,
/// swizzled. A thread brings one vector of every so many lines.
template <typename T, int ROWS, int COLUMNS, int DEEP, int PARTS>
struct RowsRing {
  static constexpr int kVectors = DEEP / 8, kStep = kRowsThreads / kVectors, kStage = (ROWS + COLUMNS) * DEEP;
  static constexpr int kLinesA = (ROWS + kStep - 1) / kStep, kLinesB = COLUMNS / kStep;
  static_assert(COLUMNS * kVectors % kRowsThreads == 0, "whole vectors to a thread");

  T *memory, *own_place;
  const T *a_lines[kLinesA], *b_lines[kLinesB], *own_b;
  int begin, end, pieces, turn, own_line, own_k;

  __device__ __forceinline__ RowsRing(const Product& p, unsigned char* at, int rank, int tile, int first) : memory(reinterpret_cast<T*>(at)) {
    const int depth = (p.k + PARTS * DEEP - 1) / (PARTS * DEEP) * DEEP, thread = threadIdx.x;
    begin = rank * depth;
    end = min(begin + depth, p.k);
    pieces = max((end - begin + DEEP - 1) / DEEP, 0);
    // Blocks begin at different pieces: all would else ask for the same lines of a at the same time.
    turn = pieces > 0 ? tile % pieces : 0;
    own_line = thread / kVectors;
    own_k = begin + thread % kVectors * 8;
    own_b = static_cast<const T*>(p.b) + static_cast<long long>(first) * p.b_pitch;
#pragma unroll
    for (int i = 0; i < kLinesA; i++) a_lines[i] = static_cast<const T*>(p.a) + static_cast<long long>(min(own_line + kStep * i, p.m - 1)) * p.a_pitch + own_k;
#pragma unroll
    for (int i = 0; i < kLinesB; i++) b_lines[i] = own_b + static_cast<long long>(min(own_line + kStep * i, p.n - 1 - first)) * p.b_pitch + own_k;
    own_place = swizzled<T, DEEP>(memory, own_line, thread % kVectors);
  }

  __device__ __forceinline__ T* stage(int piece) const { return memory + piece % kRowsStages * kStage; }
  __device__ __forceinline__ void bring_a(int piece) const { bring<kLinesA, ROWS>(piece % kRowsStages * kStage, a_lines, piece); }
  __device__ __forceinline__ void bring_b(int piece) const { bring<kLinesB, COLUMNS>(piece % kRowsStages * kStage + ROWS * DEEP, b_lines, piece); }

 private:
  template <int COUNT, int MOST>
  __device__ __forceinline__ void bring(int place, const T* const* lines, int piece) const {
    const int shifted = piece + turn, at = (shifted < pieces ? shifted : shifted - pieces) * DEEP;
    const bool there = own_k + at < end;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (MOST % kStep == 0 || own_line + kStep * i < MOST) copy_16(own_place + place + kStep * i * DEEP, lines[i] + (there ? at : 0), there ? 16 : 0);
  }
};

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows: up to 16 TALL rows, and PARTS blocks share k, so that little
/// of a has to come to each once the kernel before has ended. All lines are aligned to 16 bytes and k is a multiple of 8. Pieces of k come to a
/// ring in shared memory; a warp has 16 rows and a part of the columns, or of each piece where blocks do not share k. Dynamic shared memory:
/// the ring, where sums come to lie in the end.
template <typename T, int TALL, int PARTS>
__device__ __forceinline__ void rows_product(const RowsProduct& all) {
  constexpr int COLUMNS = kRowsColumns, STAGES = kRowsStages, ROWS = 16 * TALL, SHARES = kRowsWarps / TALL;
  // Warps that have the same rows share columns, as far as they go, where blocks share k, and else pieces of k.
  constexpr int WIDE = PARTS > 1 ? (COLUMNS / SHARES > 8 ? COLUMNS / SHARES : 8) : COLUMNS, TILES = WIDE / 8, GROUPS = SHARES * WIDE / COLUMNS;
  constexpr int DEEP = GROUPS > 4 ? 128 : 64, OWN_DEEP = DEEP / GROUPS, PITCH = COLUMNS + 8;
  static_assert(OWN_DEEP % 16 == 0, "whole products to a warp");
  extern __shared__ __align__(128) unsigned char memory[];
  float* const parts = reinterpret_cast<float*>(memory);
  const Product& p = all.product;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, row_tile = warp % TALL, share = warp / TALL;
  const int group = share % GROUPS, own_column = share / GROUPS * WIDE;
  const int rank = blockIdx.x % PARTS, tile = blockIdx.x / PARTS, tiles = gridDim.x / PARTS, first = tile * COLUMNS;
  if (PARTS > 1 && !kClusters) __trap();
  const RowsRing<T, ROWS, COLUMNS, DEEP, PARTS> ring(p, memory, rank, tile, first);
  const bool normed = all.norm.squares != nullptr, adds = all.add.x != nullptr;
  // The elements that this thread finishes, of those that the cluster's blocks have sums of: EACH, in one column.
  constexpr int OWN = ROWS / PARTS, LINES = kRowsThreads / COLUMNS, EACH = (OWN + LINES - 1) / LINES;
  const int local = thread % COLUMNS, top = thread / COLUMNS, column = first + local, channel = column - all.column;
  const auto row_of = [&](int e) { return rank * OWN + top + e * LINES; };
  const auto is_row = [&](int e) { return top + e * LINES < OWN && row_of(e) < p.m; };
  const auto is_own = [&](int e) { return is_row(e) && column < p.n; };
  const bool convolves = column < p.n && all.conv.x != nullptr && channel >= 0 && channel < all.conv.conv.channels;
  // What comes after the sums is on its way before them, in the form in which it lies in memory.
  ConvFilter<T> filter;
  float4 past[EACH];
  const auto read_conv = [&] {
    if (!convolves) return;
    filter.load(all.conv, channel);
#pragma unroll
    for (int e = 0; e < EACH; e++)
      if (is_row(e)) past[e] = conv_past(all.conv, row_of(e), channel);
  };

  const int from = max(first, all.column), convolved = min(first + COLUMNS, all.column + all.conv.conv.channels) - from;
  if (all.early) {
#pragma unroll
    for (int i = 0; i < STAGES; i++)
      if (i < ring.pieces) ring.bring_b(i);
  }
  if ((!all.early || ring.pieces > STAGES) && thread < COLUMNS && first + thread < p.n && ring.begin < ring.end) {
    prefetch_row(ring.own_b + static_cast<long long>(thread) * p.b_pitch + ring.begin, (ring.end - ring.begin) * static_cast<int>(sizeof(T)));
  }
  if (!all.conv.conv.early && all.conv.x != nullptr && all.conv.initial != nullptr && convolved > 0) {
    const int row = rank * OWN + thread;
    if (thread < OWN && row < p.m) {
      prefetch_row(all.conv.initial + 4 * (static_cast<long long>(row) * all.conv.conv.channels + from - all.column), 16 * convolved);
    }
  }
  if (adds && thread == 0) prefetch(static_cast<const T*>(all.add.weight) + first);
  if (all.conv.conv.early) read_conv();
  wait_for_previous();
  __shared__ float scales[ROWS];
  RowSquares squares;
#pragma unroll
  for (int i = 0; i < STAGES; i++) {
    if (i < ring.pieces) {
      if (!all.early) ring.bring_b(i);
      ring.bring_a(i);
    }
    close_copies();
  }
  // Not before: what the next one asks for would come first.
  let_next_start();
  if (!all.conv.conv.early) read_conv();
  float old[EACH];
  T weight{};
  if (adds) {
    if (column < p.n) weight = static_cast<const T*>(all.add.weight)[column];
#pragma unroll
    for (int e = 0; e < EACH; e++) old[e] = is_own(e) ? read_early(all.add.x + static_cast<long long>(row_of(e)) * all.add.x_pitch + column) : 0.0f;
  }
  // The norm's own rows are shared out among all blocks.
  const int unit = PARTS > 1 ? blockIdx.x : tile, units = PARTS > 1 ? gridDim.x : tiles;
  const auto read_row = [&](int row) {
    RowsNorm norm = all.norm;
    if (norm.sums) norm.sums += row * p.k;
    return read_unnormed(norm, static_cast<const T*>(p.a) + static_cast<long long>(row) * p.a_pitch, p.k);
  };
  float4 unnormed = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (normed) {
    squares.read(all.norm, min(thread / 4, p.m - 1));
    if (unit < p.m) unnormed = read_row(unit);
  }
  float sum[TILES][4] = {};
#pragma unroll 1
  for (int piece = 0; piece < ring.pieces; piece++) {
    if (ring.pieces > STAGES) wait_copies<STAGES - 2>();
    else wait_copies<STAGES - 1>();
    __syncthreads();
    // To where the piece before was, of which all have made use.
    if (piece > 0 && piece - 1 + STAGES < ring.pieces) {
      ring.bring_b(piece - 1 + STAGES);
      ring.bring_a(piece - 1 + STAGES);
    }
    close_copies();
    T* const stage = ring.stage(piece);
#pragma unroll
    for (int k = 0; k < OWN_DEEP; k += 16) {
      const int vector = (group * OWN_DEEP + k) / 8;
      HalfA a;
      load_matrices(a.at, swizzled<T, DEEP>(stage, 16 * row_tile + lane % 16, vector + lane / 16));
      T* const lines = stage + ROWS * DEEP;
#pragma unroll
      for (int j = 0; j < TILES; j += 2) {
        uint32_t r[4];
        const int line = own_column + 8 * j + lane % 8 + (TILES > 1 ? lane / 16 * 8 : 0);
        load_matrices(r, swizzled<T, DEEP>(lines, line, vector + lane / 8 % 2));
        multiply<T>(sum[j], a, HalfB{r[0], r[1]});
        if (j + 1 < TILES) multiply<T>(sum[j + 1], a, HalfB{r[2], r[3]});
      }
    }
  }
  if (normed) {
    const float scale = squares.scale(all.norm, p.k);
    if (thread / 4 < ROWS && thread % 4 == 0) scales[thread / 4] = scale;
  }
  // Sums come to lie where the ring was.
  __syncthreads();
#pragma unroll
  for (int j = 0; j < TILES; j++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = 16 * row_tile + 8 * h + lane / 4;
      *reinterpret_cast<float2*>(parts + (group * ROWS + row) * PITCH + own_column + 8 * j + lane % 4 * 2) = make_float2(sum[j][2 * h], sum[j][2 * h + 1]);
    }
  // Of all warps, or of all blocks, at once: each takes its time.
  float got[EACH][PARTS * GROUPS];
  const auto place_of = [&](int e, int group) { return (group * ROWS + min(row_of(e), ROWS - 1)) * PITCH + local; };
  if (PARTS > 1) {
    cluster_arrive();
    cluster_wait();
#pragma unroll
    for (int r = 0; r < PARTS; r++) {
      const uint32_t of_rank = of_block(parts, r);
#pragma unroll
      for (int e = 0; e < EACH; e++)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) got[e][r * GROUPS + g] = load_of_block(of_rank + 4 * place_of(e, g));
    }
    // What others still read must not go: they say so here, and are waited for in the end.
    cluster_arrive();
  } else {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
      for (int g = 0; g < GROUPS; g++) got[e][g] = parts[place_of(e, g)];
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int row = row_of(e);
    float square = 0.0f;
    if (is_own(e)) {
      float x = 0.0f;
#pragma unroll
      for (int r = 0; r < PARTS * GROUPS; r++) x += got[e][r];
      if (normed) x *= scales[row];
      x = write_product<T>(p, row, column, x);
      if (convolves) filter.finish(all.conv, row, channel, past[e], x);
      if (adds) {
        const long long at = static_cast<long long>(row) * p.n + column;
        const float y = old[e] + x;
        all.add.sums[at] = y;
        static_cast<T*>(all.add.scaled)[at] = from_float<T>(y * to_float(weight));
        square = y * y;
      }
    }
    // A warp has all columns of a row.
    if (adds) {
      square = warp_sum(square);
      if (lane == 0 && is_own(e)) all.add.squares[row * tiles + tile] = square;
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

// Half of the registers at most: the kernel after it is there already, and asks for what no one writes.
#define DIFFMAMBA_ROWS(NAME, T, TALL)                                                                                              \
  extern "C" __global__ void __launch_bounds__(kRowsThreads, 2) matmul_rows##TALL##x1_##NAME(const __grid_constant__ RowsProduct p) { \
    rows_product<T, TALL, 1>(p);                                                                                                   \
  }                                                                                                                                \
  extern "C" __global__ void __launch_bounds__(kRowsThreads, 2) CLUSTER_OF(4)                                                        \
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
