// Layer: CUDA kernels. The matrix product of a token of 9 to 64 rows in 16 bits, on tensor cores: a block has all rows of a few columns, and
// its warps share k, so that the weights are read once, all at the same time; with it goes the convolution of some of the columns, and half a
// norm before or after it. Sums are f32, in an order that follows from the shape. Where k is short, each lane has an element. Knows no model.

#include "cluster.cuh"
#include "conv_step.cuh"
#include "half_products.cuh"
#include "overlap.cuh"
#include "rows_norm.cuh"
#include "rows_ring.cuh"
#include "warpgroup.cuh"

/// Columns of a block, and of one part of the squares of a row.
constexpr int kRowsColumns = 32;
/// Floats from one line of sums to the next.
constexpr int kSumsPitch = kRowsColumns + 8;

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

/// How a block's warps share a tile of 16 TALL rows, where PARTS blocks share k: a warp has 16 rows and kWide columns, of one of kGroups shares of
/// each piece of k. Where blocks do not share k all of its warps' shares are of k.
template <int TALL, int PARTS>
struct RowsShares {
  static constexpr int kRows = 16 * TALL, kShares = kRowsThreads / 32 / TALL, kFew = kRowsColumns / kShares > 8 ? kRowsColumns / kShares : 8;
  static constexpr int kWide = PARTS > 1 ? kFew : kRowsColumns, kTiles = kWide / 8, kGroups = kShares * kWide / kRowsColumns;
  static constexpr int kDeep = kRingDeep / kGroups;
  /// Four warps that have 64 rows multiply together.
  static constexpr bool kTogether = kWarpgroups && TALL == 4;
  static_assert(kDeep % 16 == 0, "whole products to a warp");
  int row_tile, group, column;

  __device__ __forceinline__ RowsShares() {
    const int warp = threadIdx.x / 32, share = warp / TALL;
    row_tile = warp % TALL;
    group = share % kGroups;
    column = share / kGroups * kWide;
  }

  /// The warp's sums, of one piece more; done with {@link wait_products}.
  template <typename Ring, typename T>
  __device__ __forceinline__ void multiply_piece(float (&sum)[kTiles][4], T* stage) const {
    T* const lines = stage + kRows * Ring::kHalf;
    if constexpr (kTogether) {
      begin_products();
#pragma unroll
      for (int k = 0; k < kDeep; k += 16) {
        const int half = (group * kDeep + k) / Ring::kHalf * Ring::kHalfStage, at = k % Ring::kHalf;
        multiply_tiles<T>(sum, further(tile_at(stage + half), at), further(tile_at(lines + half + column * Ring::kHalf), at));
      }
      close_products();
    } else {
      const int lane = threadIdx.x % 32;
#pragma unroll
      for (int k = 0; k < kDeep; k += 16) {
        const int vector = (group * kDeep + k) / 8;
        HalfA a;
        load_matrices(a.at, Ring::place(stage, 16 * row_tile + lane % 16, vector + lane / 16));
#pragma unroll
        for (int j = 0; j < kTiles; j += 2) {
          uint32_t r[4];
          const int line = column + 8 * j + lane % 8 + (kTiles > 1 ? lane / 16 * 8 : 0);
          load_matrices(r, Ring::place(lines, line, vector + lane / 8 % 2));
          multiply<T>(sum[j], a, HalfB{r[0], r[1]});
          if (j + 1 < kTiles) multiply<T>(sum[j + 1], a, HalfB{r[2], r[3]});
        }
      }
    }
  }
};

/// The elements that a thread finishes, of the rows of which its block has the last word: kEach in one column.
template <int ROWS, int PARTS>
struct RowsOwn {
  static constexpr int kRows = ROWS / PARTS, kStep = kRowsThreads / kRowsColumns, kEach = (kRows + kStep - 1) / kStep;
  int top, first, column, m, n;

  __device__ __forceinline__ RowsOwn(const Product& p, int rank, int first_column)
      : top(threadIdx.x / kRowsColumns), first(rank * kRows + top), column(first_column + threadIdx.x % kRowsColumns), m(p.m), n(p.n) {}
  __device__ __forceinline__ int row(int e) const { return first + e * kStep; }
  __device__ __forceinline__ bool is_row(int e) const { return (kRows % kStep == 0 || top + e * kStep < kRows) && row(e) < m; }
  __device__ __forceinline__ bool is(int e) const { return is_row(e) && column < n; }
  /// The sum of COUNT sums of each.
  template <int COUNT>
  __device__ __forceinline__ void total(float (&x)[kEach], const float* sums) const {
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      const float* const at = sums + min(top + e * kStep, kRows - 1) * kSumsPitch + threadIdx.x % kRowsColumns;
      float part[COUNT];
#pragma unroll
      for (int i = 0; i < COUNT; i++) part[i] = at[i * kRows * kSumsPitch];
      x[e] = part[0];
#pragma unroll
      for (int i = 1; i < COUNT; i++) x[e] += part[i];
    }
  }
};

/// The convolution of a thread's elements: what it needs is on its way before the sums, in the form in which it lies in memory.
template <typename T, typename Own>
struct RowsConvolution {
  ConvFilter<T> filter;
  float4 past[Own::kEach];
  int channel;
  bool convolves;

  __device__ __forceinline__ RowsConvolution(const RowsProduct& all, const Own& own) : channel(own.column - all.column) {
    convolves = own.column < own.n && all.conv.x != nullptr && channel >= 0 && channel < all.conv.conv.channels;
  }
  __device__ __forceinline__ void read(const ConvStep& conv, const Own& own) {
    if (!convolves) return;
    filter.load(conv, channel);
#pragma unroll
    for (int e = 0; e < Own::kEach; e++) past[e] = own.is_row(e) ? conv_past(conv, own.row(e), channel) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
  __device__ __forceinline__ void finish(const ConvStep& conv, const Own& own, const float (&x)[Own::kEach]) const {
    if (!convolves) return;
    float y[Own::kEach];
#pragma unroll
    for (int e = 0; e < Own::kEach; e++) y[e] = filter.output(past[e], x[e]);
    if (conv.conv.silu) {
#pragma unroll
      for (int e = 0; e < Own::kEach; e++) y[e] = quick_silu(y[e]);
    }
#pragma unroll
    for (int e = 0; e < Own::kEach; e++)
      if (own.is_row(e)) filter.write(conv, own.row(e), channel, past[e], x[e], y[e]);
  }
};

/// The residual stream that a thread's elements are added to, and the first half of a norm of it.
template <typename T, typename Own>
struct RowsStream {
  float old[Own::kEach];
  T weight{};

  __device__ __forceinline__ void read(const RowsAdd& add, const Own& own) {
    if (own.column < own.n) weight = static_cast<const T*>(add.weight)[own.column];
#pragma unroll
    for (int e = 0; e < Own::kEach; e++) {
      old[e] = own.is(e) ? read_early(add.x + static_cast<long long>(own.row(e)) * add.x_pitch + own.column) : 0.0f;
    }
  }
  __device__ __forceinline__ void finish(const RowsAdd& add, const Own& own, const float (&x)[Own::kEach], int tile, int tiles) const {
#pragma unroll
    for (int e = 0; e < Own::kEach; e++) {
      const long long at = static_cast<long long>(own.row(e)) * own.n + own.column;
      const float y = old[e] + x[e];
      if (own.is(e)) {
        add.sums[at] = y;
        static_cast<T*>(add.scaled)[at] = from_float<T>(y * to_float(weight));
      }
      // A warp has all columns of a row.
      const float square = warp_sum(own.is(e) ? y * y : 0.0f);
      if (threadIdx.x % 32 == 0 && own.is_row(e)) add.squares[own.row(e) * tiles + tile] = square;
    }
  }
};

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows: up to 16 TALL rows, and PARTS blocks share k, so that little
/// of a has to come to each once the kernel before has ended. All lines are aligned to 16 bytes and k is a multiple of 8. Dynamic shared memory:
/// the ring, where sums come to lie in the end.
template <typename T, int TALL, int PARTS>
__device__ __forceinline__ void rows_product(const RowsProduct& all) {
  using Shares = RowsShares<TALL, PARTS>;
  using Own = RowsOwn<Shares::kRows, PARTS>;
  constexpr int ROWS = Shares::kRows, COLUMNS = kRowsColumns, EACH = Own::kEach, COUNT = PARTS * Shares::kGroups;
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ float scales[ROWS];
  __shared__ __align__(16) float taken[PARTS > 1 ? COUNT * Own::kRows * kSumsPitch : 1];
  __shared__ Mailbox box;
  if (PARTS > 1) {
    if (!kClusters) __trap();
    box.open(COUNT * Own::kRows * COLUMNS * static_cast<int>(sizeof(float)));
  }
  const Product& p = all.product;
  const int thread = threadIdx.x, lane = thread % 32, rank = blockIdx.x % PARTS, tile = blockIdx.x / PARTS, tiles = gridDim.x / PARTS;
  const int first = tile * COLUMNS;
  const Shares shares;
  const Own own(p, rank, first);
  using Ring = RowsRing<T, ROWS, COLUMNS, kRowsThreads, PARTS>;
  const Ring ring(p, memory, rank, tile, first);
  const bool normed = all.norm.squares != nullptr, adds = all.add.x != nullptr;
  RowsConvolution<T, Own> convolution(all, own);
  if (all.early) {
#pragma unroll
    for (int i = 0; i < kRingStages; i++)
      if (i < ring.pieces) ring.bring_b(i);
  }
  if ((!all.early || ring.pieces > kRingStages) && thread < COLUMNS && first + thread < p.n && ring.begin < ring.end) {
    prefetch_row(ring.own_b + static_cast<long long>(thread) * p.b_pitch + ring.begin, (ring.end - ring.begin) * static_cast<int>(sizeof(T)));
  }
  const int from = max(first, all.column), convolved = min(first + COLUMNS, all.column + all.conv.conv.channels) - from;
  if (!all.conv.conv.early && all.conv.x != nullptr && all.conv.initial != nullptr && convolved > 0) {
    const int row = rank * Own::kRows + thread;
    if (thread < Own::kRows && row < p.m) {
      prefetch_row(all.conv.initial + 4 * (static_cast<long long>(row) * all.conv.conv.channels + from - all.column), 16 * convolved);
    }
  }
  if (adds && thread == 0) prefetch(static_cast<const T*>(all.add.weight) + first);
  if (all.conv.conv.early) convolution.read(all.conv, own);
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < kRingStages; i++) {
    if (i < ring.pieces) {
      if (!all.early) ring.bring_b(i);
      ring.bring_a(i);
    }
    close_copies();
  }
  // Not before: what the next one asks for would come first.
  let_next_start();
  if (!all.conv.conv.early) convolution.read(all.conv, own);
  RowsStream<T, Own> stream;
  if (adds) stream.read(all.add, own);
  // The norm's own rows are shared out among all blocks.
  RowSquares squares;
  UnnormedRow<T> unnormed;
  const int unit = blockIdx.x;
  if (normed) {
    squares.read(all.norm, min(thread / 4, p.m - 1));
    if (unit < p.m) unnormed.read(all.norm, p.a, unit, p.a_pitch, p.k);
  }
  float sum[Shares::kTiles][4] = {};
#pragma unroll 1
  for (int piece = 0; piece < ring.pieces; piece++) {
    if (ring.pieces > kRingStages) wait_copies<kRingStages - 2>();
    else wait_copies<kRingStages - 1>();
    if (Shares::kTogether) {
      show_to_products();
      wait_products();
    }
    __syncthreads();
    shares.template multiply_piece<Ring>(sum, ring.stage(piece));
    // To where the piece before was, of which all have made use.
    if (piece > 0 && piece - 1 + kRingStages < ring.pieces) {
      ring.bring_b(piece - 1 + kRingStages);
      ring.bring_a(piece - 1 + kRingStages);
    }
    close_copies();
  }
  if (Shares::kTogether) wait_products();
  if (normed) {
    const float scale = squares.scale(all.norm, p.k);
    if (thread / 4 < ROWS && thread % 4 == 0) scales[thread / 4] = scale;
  }
  // Sums come to lie where the ring was, or where others send them.
  float* const sums = PARTS > 1 ? taken : reinterpret_cast<float*>(memory);
  if (PARTS > 1) box.wait_for_others();
  __syncthreads();
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = 16 * shares.row_tile + 8 * h + lane / 4;
    float* const at = sums + ((rank * Shares::kGroups + shares.group) * Own::kRows + row % Own::kRows) * kSumsPitch + shares.column + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < Shares::kTiles; j++) {
      const float x = sum[j][2 * h], y = sum[j][2 * h + 1];
      if (PARTS > 1) box.send(row / Own::kRows, at + 8 * j, x, y);
      else *reinterpret_cast<float2*>(at + 8 * j) = make_float2(x, y);
    }
  }
  if (PARTS > 1) box.wait();
  else __syncthreads();
  float x[EACH];
  own.template total<COUNT>(x, sums);
  if (normed) {
#pragma unroll
    for (int e = 0; e < EACH; e++) x[e] *= scales[min(own.row(e), ROWS - 1)];
  }
  write_products<T>(p, own.first, Own::kStep, own.column, x, [&](int e) { return own.is(e); });
  convolution.finish(all.conv, own, x);
  if (adds) stream.finish(all.add, own, x, tile, tiles);
  if (normed) {
    for (int row = unit; row < p.m; row += gridDim.x) {
      if (row != unit) unnormed.read(all.norm, p.a, row, p.a_pitch, p.k);
      unnormed.write(all.norm, row, p.k, scales[row]);
    }
  }
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
