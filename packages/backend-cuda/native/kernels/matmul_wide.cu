// Layer: CUDA kernels. The matrix product of a token of 9 to 64 rows in 16 bits with very many columns, such as a vocabulary: as many blocks as
// multiprocessors, each with every so many tiles of columns. The rows stay in shared memory; pieces of the weights come to a ring that goes on
// from tile to tile, so that they never stop coming. Sums are f32, in an order that follows from the shape. Knows no model.

#include "half_products.cuh"
#include "overlap.cuh"
#include "token_product.cuh"

constexpr int kWideThreads = 256;
/// Columns of a tile, elements of k of a piece, and pieces of b that are on their way at a time: src/kernels/matmul.ts.
constexpr int kWideColumns = 128;
constexpr int kWideDeep = 64;
constexpr int kWideStages = 5;

struct WideProduct {
  Product product;
  /// Whether b may be read before the kernel before has ended.
  int early, unused;
};

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows, lines are aligned to 16 bytes and k is a multiple of 8. Up to 32 HALVES rows: a
/// warp has 32 of them and, with the others of its half, all columns of a tile.
template <typename T, int HALVES>
__device__ __forceinline__ void wide_product(const WideProduct& all) {
  const Product& p = all.product;
  constexpr int ROWS = 32 * HALVES, DEEP = kWideDeep, VECTORS = DEEP / 8, STAGE = kWideColumns * DEEP;
  constexpr int SHARES = kWideThreads / 32 / HALVES, WIDE = kWideColumns / SHARES, TILES = WIDE / 8;
  extern __shared__ __align__(128) unsigned char memory[];
  T* const own_rows = reinterpret_cast<T*>(memory);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, half = warp % HALVES, own_column = warp / HALVES * WIDE;
  const int depth = (p.k + DEEP - 1) / DEEP, tiles = (p.n + kWideColumns - 1) / kWideColumns;
  const int own_tiles = (tiles - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
  T* const ring = own_rows + depth * ROWS * DEEP;
  const auto first_of = [&](int tile) { return (static_cast<int>(blockIdx.x) + tile * static_cast<int>(gridDim.x)) * kWideColumns; };
  // A thread brings one vector of every so many lines. The tile and the piece of it that come next are counted, not divided for.
  constexpr int STEP = kWideThreads / VECTORS, LINES = kWideColumns / STEP;
  const int own_line = thread / VECTORS, own_k = thread % VECTORS * 8;
  T* const own_place = swizzled<T, DEEP>(ring, own_line, thread % VECTORS);
  const T* b_lines[LINES];
  int next = 0, next_tile = 0, slot = 0;
  const auto bring_rows = [&](int piece) {
    if (piece >= depth || own_tiles == 0) return;
    T* const place = swizzled<T, DEEP>(own_rows + piece * ROWS * DEEP, own_line, thread % VECTORS);
    const bool there = own_k + piece * DEEP < p.k;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
      const T* const line = static_cast<const T*>(p.a) + static_cast<long long>(min(own_line + STEP * i, p.m - 1)) * p.a_pitch + own_k;
      copy_16(place + STEP * i * DEEP, line + (there ? piece * DEEP : 0), there ? 16 : 0);
    }
  };
  const auto bring_next = [&] {
    if (next_tile < own_tiles) {
      const int k = next * DEEP, first = first_of(next_tile);
      const bool there = own_k + k < p.k;
      if (next == 0) {
#pragma unroll
        for (int i = 0; i < LINES; i++)
          b_lines[i] = static_cast<const T*>(p.b) + static_cast<long long>(min(first + own_line + STEP * i, p.n - 1)) * p.b_pitch + own_k;
      }
#pragma unroll
      for (int i = 0; i < LINES; i++) copy_16(own_place + slot * STAGE + STEP * i * DEEP, b_lines[i] + (there ? k : 0), there ? 16 : 0);
      if (++next == depth) {
        next = 0;
        next_tile++;
      }
      slot = slot + 1 < kWideStages ? slot + 1 : 0;
    }
  };
  let_next_start();
  if (!all.early) wait_for_previous();
#pragma unroll
  for (int i = 0; i < kWideStages - 1; i++) bring_next();
  if (all.early) wait_for_previous();
#pragma unroll
  for (int i = 0; i < kWideStages - 1; i++) {
    bring_rows(i);
    close_copies();
  }
  float sum[2][TILES][4] = {};
  int used = 0;
  const bool pairs = p.out_f32 && !p.accumulate && p.out_pitch % 2 == 0 && reinterpret_cast<unsigned long long>(p.out) % 8 == 0;
#pragma unroll 1
  for (int tile = 0; tile < own_tiles; tile++) {
#pragma unroll 1
    for (int piece = 0; piece < depth; piece++) {
      wait_copies<kWideStages - 2>();
      __syncthreads();
      bring_next();
      if (tile == 0) bring_rows(piece + kWideStages - 1);
      close_copies();
      T* const stage = ring + used * STAGE;
      T* const rows = own_rows + piece * ROWS * DEEP;
      used = used + 1 < kWideStages ? used + 1 : 0;
#pragma unroll
      for (int k = 0; k < DEEP / 8; k += 2) {
        HalfA a[2];
#pragma unroll
        for (int i = 0; i < 2; i++) load_matrices(a[i].at, swizzled<T, DEEP>(rows, 32 * half + 16 * i + lane % 16, k + lane / 16));
#pragma unroll
        for (int j = 0; j < TILES; j += 2) {
          uint32_t r[4];
          load_matrices(r, swizzled<T, DEEP>(stage, own_column + 8 * j + lane % 8 + lane / 16 * 8, k + lane / 8 % 2));
#pragma unroll
          for (int i = 0; i < 2; i++) {
            multiply<T>(sum[i][j], a[i], HalfB{r[0], r[1]});
            multiply<T>(sum[i][j + 1], a[i], HalfB{r[2], r[3]});
          }
        }
      }
    }
    const int first = first_of(tile) + own_column;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int row = 32 * half + 16 * i + 8 * h + lane / 4, column = first + 8 * j + lane % 4 * 2;
          float* const own = sum[i][j] + 2 * h;
          if (row < p.m) {
            if (pairs && column + 1 < p.n) {
              float* const to = static_cast<float*>(p.out) + static_cast<long long>(row) * p.out_pitch + column;
              *reinterpret_cast<float2*>(to) = make_float2(own[0], own[1]);
            } else {
              if (column < p.n) write_product<T>(p, row, column, own[0]);
              if (column + 1 < p.n) write_product<T>(p, row, column + 1, own[1]);
            }
          }
          own[0] = own[1] = 0.0f;
        }
  }
}

#define DIFFMAMBA_WIDE(NAME, T)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kWideThreads, 1) matmul_wide1_##NAME(const __grid_constant__ WideProduct p) { \
    wide_product<T, 1>(p);                                                                                                       \
  }                                                                                                                              \
  extern "C" __global__ void __launch_bounds__(kWideThreads, 1) matmul_wide2_##NAME(const __grid_constant__ WideProduct p) { \
    wide_product<T, 2>(p);                                                                                                       \
  }
DIFFMAMBA_WIDE(bf16, bf16)
DIFFMAMBA_WIDE(f16, f16)
