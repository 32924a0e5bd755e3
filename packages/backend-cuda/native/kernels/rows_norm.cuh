// Layer: CUDA kernels. A norm of residual sums between two products of some rows, normed = weight sum / rms(sum), half in each of them. The
// product before it leaves weight sum, rounded, in place of the normed rows, and squares by its blocks; the product after it takes those
// rows and scales what comes out. That is another rounding of the same product. What the norm itself leaves, the product after it writes.
// Knows blocks of kRowsThreads. Knows no product.
#pragma once

#include "common.cuh"

constexpr int kRowsThreads = 256;

/// What becomes of `out`: sums = x + out, as far as the product before a norm has it. x null: without.
struct RowsAdd {
  const float* x;
  const void* weight;
  /// (m, n) each, and (m, blocks along n).
  float* sums;
  void* scaled;
  float* squares;
  int x_pitch, unused;
};
/// What is left to do of a norm by the product that takes its rows. squares null: without.
struct RowsNorm {
  /// (m, k), and (m, parts).
  const float* sums;
  const float* squares;
  const void* weight;
  /// sum null: not wanted; rstd likewise.
  float* sum;
  void* normed;
  float* rstd;
  int parts, sum_pitch, normed_pitch;
  float eps;
};

/// Most floats of `squares` to a row, and of a row: a thread has four.
constexpr int kNormParts = 32;
constexpr int kNormWidth = 4 * kRowsThreads;

/// Ordered where it stands: compilers would rather load where the number is used.
__device__ __forceinline__ float read_early(const float* from) {
  float x;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(x) : "l"(from) : "memory");
  return x;
}
__device__ __forceinline__ float4 read_early4(const float* from) {
  float4 x;
  asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"(from) : "memory");
  return x;
}

/// The squares of a row that a thread sums: four threads have a row.
struct RowSquares {
  static constexpr int kEach = kNormParts / 4;
  float at[kEach];

  __device__ __forceinline__ void read(const RowsNorm& norm, int row) {
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      const int part = 4 * i + static_cast<int>(threadIdx.x % 4);
      at[i] = part < norm.parts ? read_early(norm.squares + row * norm.parts + part) : 0.0f;
    }
  }
  /// 1 / rms of the row, for all four.
  __device__ __forceinline__ float scale(const RowsNorm& norm, int width) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kEach; i++) sum += at[i];
#pragma unroll
    for (int i = 1; i < 4; i <<= 1) sum += __shfl_xor_sync(kFullMask, sum, i);
    return 1.0f / sqrtf(sum / width + norm.eps);
  }
};

/// What the norm itself leaves of a row: its sum, the normed row and 1 / rms.
template <typename T>
__device__ __forceinline__ void write_normed(const RowsNorm& norm, int row, int width, float4 sums, float scale) {
  const int at = 4 * threadIdx.x;
  if (threadIdx.x == 0 && norm.rstd != nullptr) norm.rstd[row] = scale;
  if (at >= width) return;
  const float sum[4] = {sums.x, sums.y, sums.z, sums.w};
  float w[4], normed[4];
  load<4>(static_cast<const T*>(norm.weight) + at, w);
#pragma unroll
  for (int i = 0; i < 4; i++) normed[i] = sum[i] * scale * w[i];
  if (norm.sum != nullptr) store<4>(norm.sum + static_cast<long long>(row) * norm.sum_pitch + at, sum);
  store<4>(static_cast<T*>(norm.normed) + static_cast<long long>(row) * norm.normed_pitch + at, normed);
}
