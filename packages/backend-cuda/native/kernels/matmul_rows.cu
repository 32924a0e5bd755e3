// Layer: CUDA kernels. The matrix product of a token of 9 to 64 rows in 16 bits, on tensor cores: a block has all rows of a few columns, and
// its warps share k, so that the weights are read once, all at the same time; with it goes the convolution of some of the columns. Sums are
// f32, in an order that follows from the shape. Knows no model.

#include "conv_step.cuh"
#include "overlap.cuh"
#include "token_product.cuh"

constexpr int kRowsThreads = 256;
constexpr int kRowsWarps = kRowsThreads / 32;

struct RowsProduct {
  Product product;
  /// x null: without. It is of the product's columns from `column` on.
  ConvStep conv;
  int column;
};

/// Eight elements of a line, as tensor cores take them: two in a word.
struct alignas(16) Eight {
  uint32_t at[4];
};

/// sum (16 rows, 8 columns) += a (16, 16) b (16, 8).
template <typename T>
__device__ __forceinline__ void multiply_add(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void multiply_add<bf16>(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                                   uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<f16>(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                                  uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows: up to 16 TALL rows, 8 WIDE columns to a block. All lines are aligned to
/// 16 bytes and k is a multiple of 8. A lane reads 8 elements of a line, and the four of a line 32; which elements of k stand at which place
/// of the unit is the same for both sides, and so does not matter. Dynamic shared memory: half of the warps' sums.
template <typename T, int TALL, int WIDE>
__device__ __forceinline__ void rows_product(const RowsProduct& all) {
  constexpr int COLUMNS = 8 * WIDE, PITCH = WIDE == 1 ? 8 : COLUMNS + 8, ROWS = 16 * TALL, HALF = kRowsWarps / 2;
  // Pieces of k that are on their way at once, as far as registers allow.
  constexpr int AHEAD = TALL * WIDE >= 16 ? 1 : 2;
  extern __shared__ __align__(16) unsigned char memory[];
  float* const parts = reinterpret_cast<float*>(memory);
  const Product& p = all.product;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, line = lane / 4, first = blockIdx.x * COLUMNS;
  let_next_start();
  if (threadIdx.x < COLUMNS && first + static_cast<int>(threadIdx.x) < p.n) {
    prefetch_row(static_cast<const T*>(p.b) + static_cast<long long>(first + threadIdx.x) * p.b_pitch, p.k * static_cast<int>(sizeof(T)));
  }
  const int whole = min(first + COLUMNS, all.column + all.conv.conv.channels) - max(first, all.column);
  if (all.conv.x != nullptr && all.conv.initial != nullptr && whole > 0 && static_cast<int>(threadIdx.x) < p.m) {
    const long long at = static_cast<long long>(threadIdx.x) * all.conv.conv.channels + max(first, all.column) - all.column;
    prefetch_row(all.conv.initial + 4 * at, 16 * whole);
  }
  const T* left[2 * TALL];
  const T* right[WIDE];
#pragma unroll
  for (int i = 0; i < 2 * TALL; i++) left[i] = static_cast<const T*>(p.a) + static_cast<long long>(min(8 * i + line, p.m - 1)) * p.a_pitch;
#pragma unroll
  for (int j = 0; j < WIDE; j++) right[j] = static_cast<const T*>(p.b) + static_cast<long long>(min(first + 8 * j + line, p.n - 1)) * p.b_pitch;
  float sum[TALL][WIDE][4] = {};
  wait_for_previous();
  const auto read = [&](const T* row, int at) {
    return at < p.k ? *reinterpret_cast<const Eight*>(row + at) : Eight{};
  };
  for (int start = (warp * 4 + lane % 4) * 8; start - lane % 4 * 8 < p.k; start += AHEAD * kRowsWarps * 32) {
    Eight a[AHEAD][2 * TALL], b[AHEAD][WIDE];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int at = start + u * kRowsWarps * 32;
#pragma unroll
      for (int j = 0; j < WIDE; j++) b[u][j] = read(right[j], at);
#pragma unroll
      for (int i = 0; i < 2 * TALL; i++) a[u][i] = read(left[i], at);
    }
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
#pragma unroll
      for (int s = 0; s < 4; s += 2)
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
          for (int j = 0; j < WIDE; j++)
            multiply_add<T>(sum[i][j], a[u][2 * i].at[s], a[u][2 * i + 1].at[s], a[u][2 * i].at[s + 1], a[u][2 * i + 1].at[s + 1],
                            b[u][j].at[s], b[u][j].at[s + 1]);
  }
  // The upper half of the warps leaves its sums, the lower half adds its own to them.
  float* const own = parts + warp % HALF * ROWS * PITCH;
#pragma unroll
  for (int turn = 1; turn >= 0; turn--) {
    if (warp / HALF == turn) {
#pragma unroll
      for (int i = 0; i < TALL; i++)
#pragma unroll
        for (int j = 0; j < WIDE; j++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float2* const to = reinterpret_cast<float2*>(own + (16 * i + 8 * h + line) * PITCH + 8 * j + lane % 4 * 2);
            float2 x = make_float2(sum[i][j][2 * h], sum[i][j][2 * h + 1]);
            if (turn == 0) x.x += to->x, x.y += to->y;
            *to = x;
          }
    }
    __syncthreads();
  }
  // What the convolution needs is on its way for all elements before the first is written.
  constexpr int EACH = (ROWS * COLUMNS + kRowsThreads - 1) / kRowsThreads;
  const int local = threadIdx.x % COLUMNS, top = threadIdx.x / COLUMNS, column = first + local, channel = column - all.column;
  const bool there = column < p.n && top < ROWS, convolves = there && all.conv.x != nullptr && channel >= 0 && channel < all.conv.conv.channels;
  ConvChannel conv[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int row = top + e * (kRowsThreads / COLUMNS);
    if (convolves && row < p.m) conv[e].template load<T>(all.conv, row, channel);
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int row = top + e * (kRowsThreads / COLUMNS);
    if (!there || row >= p.m) continue;
    float x = 0.0f;
#pragma unroll
    for (int w = 0; w < HALF; w++) x += parts[(w * ROWS + row) * PITCH + local];
    x = write_product<T>(p, row, column, x);
    if (convolves) conv[e].template finish<T>(all.conv, row, channel, x);
  }
}

#define DIFFMAMBA_ROWS(NAME, T, TALL, WIDE)                                                                                      \
  extern "C" __global__ void __launch_bounds__(kRowsThreads) matmul_rows##TALL##x##WIDE##_##NAME(const __grid_constant__ RowsProduct p) { \
    rows_product<T, TALL, WIDE>(p);                                                                                              \
  }
#define DIFFMAMBA_ROWS_ALL(NAME, T)                                                                        \
  DIFFMAMBA_ROWS(NAME, T, 1, 1) DIFFMAMBA_ROWS(NAME, T, 1, 4) DIFFMAMBA_ROWS(NAME, T, 2, 1)                \
  DIFFMAMBA_ROWS(NAME, T, 2, 4) DIFFMAMBA_ROWS(NAME, T, 4, 1) DIFFMAMBA_ROWS(NAME, T, 4, 4)
DIFFMAMBA_ROWS_ALL(bf16, bf16)
DIFFMAMBA_ROWS_ALL(f16, f16)
