// Layer: CUDA kernels. What the backward pass of the selective scan is given, what it holds in shared memory, and sums over lanes on the
// tensor cores. Knows selective_scan.cuh. Walks over no token.
#pragma once

#include "selective_scan.cuh"

struct ScanBackward {
  const void* u;
  const void* delta;
  const float* A;
  const void* B;
  const void* C;
  const void* z;
  const float* D;
  const float* bias;
  const int* seq;
  const int* lengths;
  /// (B, chunks * per chunk, D, N)
  const float* fine;
  const void* dy;
  const float* dfinal;
  void* du;
  void* ddelta;
  void* dz;
  /// (B, tiles, blocks, 2, 256): dB and dC by blocks of channels, token by token.
  float* partial;
  float* dinitial;
  /// (B, D, N)
  float* dA;
  /// (2, B, D): dD and the bias's gradient.
  float* by_row;
  int u_pitch, delta_pitch, B_pitch, C_pitch, z_pitch, dy_pitch, du_pitch, ddelta_pitch, dz_pitch;
  ScanSizes s;
  int softplus, aligned, fine_per_chunk;
};

template <int S>
struct ScanBackwardShared {
  static constexpr int tokens = kScanBack<S>, wide = kScanChannels + 4;
  alignas(16) float4 h[tokens][S / 4][kScanThreads];
  /// What a tile finds: two of them, so that the next one is written while the last one is still read.
  struct Given {
    float2 steps[tokens][kScanChannels + 2];
    float dy[tokens][wide];
    float skip[tokens][wide];
    float B[tokens][4 * S];
    float C[tokens][4 * S];
  } given[2];
  float y[tokens][wide];
  float gB[tokens][wide];
  float dstep[tokens][wide];
  float shared[4][2][tokens * 4 * S];
  /// The bias and D of the block's channels.
  float bias[kScanChannels];
  float D[kScanChannels];
};

/// Sums over k in TF32; for f32 the rest that TF32 leaves out is added too. `a` holds ones and zeros.
template <typename T>
__device__ __forceinline__ void sum_tf32(float (&c)[4], const uint32_t (&a)[4], float b0, float b1) {
  const auto add = [&](float x, float y) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(__float_as_uint(x)), "r"(__float_as_uint(y)));
  };
  if (sizeof(T) == 4) {
    const float x = __uint_as_float(__float_as_uint(b0) & 0xffffe000u), y = __uint_as_float(__float_as_uint(b1) & 0xffffe000u);
    add(b0 - x, b1 - y);
    add(x, y);
  } else {
    add(b0, b1);
  }
}
