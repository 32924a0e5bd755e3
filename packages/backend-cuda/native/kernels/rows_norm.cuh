// Layer: CUDA kernels. A norm before a product of some rows, normed = weight x / rms(x), half in what gives x (a product that is added to a
// residual stream, or a scan whose y is gated) and half in the product. The first leaves weight x, rounded, in place of the normed rows, and
// squares by its blocks; the product takes those rows and scales what comes out. That is another rounding of the same product. What the norm
// itself leaves, the product writes. Knows blocks of kRowsThreads. Knows no product.
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
  /// (m, k): x; null where it is gone, and the normed rows are made of weight x. And (m, parts).
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

/// Most floats of `squares` to a row.
constexpr int kNormParts = 32;

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

/// What a thread needs of a row of k elements to write what the norm itself leaves of it: four of x and of the weight, or eight of weight x as
/// they lie in memory.
template <typename T>
struct UnnormedRow {
  float4 own;
  Vector<T, 4> weight;

  /// @param scaled (m, k), its lines `pitch` apart
  __device__ __forceinline__ void read(const RowsNorm& norm, const void* scaled, int row, int pitch, int k) {
    const int at = (norm.sums ? 4 : 8) * static_cast<int>(threadIdx.x);
    if (at >= k) return;
    own = read_early4(norm.sums ? norm.sums + row * k + at : reinterpret_cast<const float*>(static_cast<const T*>(scaled) + row * pitch + at));
    if (norm.sums) weight = *reinterpret_cast<const Vector<T, 4>*>(static_cast<const T*>(norm.weight) + at);
  }

  /// x, where it is wanted, the normed row and 1 / rms, which is `scale`.
  __device__ __forceinline__ void write(const RowsNorm& norm, int row, int k, float scale) const {
    const int thread = threadIdx.x, at = (norm.sums ? 4 : 8) * thread;
    if (thread == 0 && norm.rstd != nullptr) norm.rstd[row] = scale;
    if (at >= k) return;
    T* const normed = static_cast<T*>(norm.normed) + row * norm.normed_pitch + at;
    if (norm.sums == nullptr) {
      const T* const scaled = reinterpret_cast<const T*>(&own);
      float to[8];
#pragma unroll
      for (int i = 0; i < 8; i++) to[i] = to_float(scaled[i]) * scale;
      store<8>(normed, to);
      return;
    }
    const float x[4] = {own.x, own.y, own.z, own.w};
    float to[4];
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = x[i] * scale * to_float(weight.at[i]);
    if (norm.sum != nullptr) store<4>(norm.sum + row * norm.sum_pitch + at, x);
    store<4>(normed, to);
  }
};
