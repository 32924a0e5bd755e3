// Layer: CUDA kernels. What the forward and the backward selective scan share: sizes, tiles of tokens, rows of eight channels, and how
// the states lie over a warp. Knows the scan's layouts; computes nothing.
//
// A block has 32 channels of a group. Lane l of a warp has channel l % 8 of the warp's 8 and, of each 16 states, 4 from
// 4 * (l / 8) on; S states in all, so N is padded to 4 S. Saved chunks are cut into tiles of up to `kTokens` tokens.
#pragma once

#include "common.cuh"

constexpr float kLn2 = 0.6931471805599453f;
constexpr int kScanChannels = 32;
constexpr int kScanThreads = 128;

/// Tokens between two states that the backward pass starts from.
template <int S>
constexpr int kScanBack = 64 / S;

struct ScanSizes {
  int length, channels, d_state, groups, blocks_per_group;
  int chunk_size, chunks;
};

struct ScanTokens {
  int first, nominal, count;
  __device__ ScanTokens(const ScanSizes& s, int chunk, int from, int most, int end) {
    first = chunk * s.chunk_size + from;
    nominal = max(min(most, min((chunk + 1) * s.chunk_size, s.length) - first), 0);
    count = max(min(nominal, end - first), 0);
  }
};

__device__ __forceinline__ int scan_end(const ScanSizes& s, const int* lengths, int b) {
  return lengths ? min(max(lengths[b], 0), s.length) : s.length;
}

/// The group and the channels of a block: [first, end), up to 32.
struct ScanBlock {
  int group, first, end;
  __device__ ScanBlock(const ScanSizes& s, int block) {
    group = block / s.blocks_per_group;
    const int of_group = s.channels / s.groups;
    first = group * of_group + block % s.blocks_per_group * kScanChannels;
    end = min(first + kScanChannels, (group + 1) * of_group);
  }
};

/// Eight elements as they lie in memory, in words.
template <typename T>
struct Eight {
  static constexpr int vectors = 8 / kVector<T>;
  uint4 at[vectors];

  __device__ __forceinline__ uint32_t word(int i) const {
    const uint4& v = at[i / 4];
    return i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
  }
  /// The first `count` of them; zeros after. With `aligned`, `from` is a multiple of 16 bytes.
  __device__ __forceinline__ void load(const T* from, int count, bool aligned) {
    if (aligned && (count >= 8 || count <= 0)) {
#pragma unroll
      for (int i = 0; i < vectors; i++) at[i] = count > 0 ? reinterpret_cast<const uint4*>(from)[i] : make_uint4(0, 0, 0, 0);
    } else {
      Vector<T, 8> v;
#pragma unroll
      for (int i = 0; i < 8; i++) v.at[i] = i < count ? from[i] : from_float<T>(0.0f);
#pragma unroll
      for (int i = 0; i < vectors; i++) at[i] = reinterpret_cast<const uint4*>(&v)[i];
    }
  }
  __device__ __forceinline__ void unpack(float (&to)[8]) const {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 8; i++) to[i] = __uint_as_float(word(i));
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const uint32_t w = word(i);
        const Vector<T, 2> two = *reinterpret_cast<const Vector<T, 2>*>(&w);
        to[2 * i] = to_float(two.at[0]);
        to[2 * i + 1] = to_float(two.at[1]);
      }
    }
  }
};

/// Stores the first `count` of eight numbers.
template <typename T>
__device__ __forceinline__ void store_eight(T* to, const float (&from)[8], int count, bool aligned) {
  if (aligned && count >= 8) {
    Vector<T, 8> v;
#pragma unroll
    for (int i = 0; i < 8; i++) v.at[i] = from_float<T>(from[i]);
#pragma unroll
    for (int i = 0; i < Eight<T>::vectors; i++) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(&v)[i];
  } else {
    for (int i = 0; i < 8; i++)
      if (i < count) to[i] = from_float<T>(from[i]);
  }
}

/// Eight numbers of a row in shared memory, at a multiple of 16 bytes.
__device__ __forceinline__ void read_eight(float (&to)[8], const float* from) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
__device__ __forceinline__ void write_eight(float* to, const float (&from)[8]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

/// The state that register i of a lane has.
__device__ __forceinline__ int scan_state(int i, int lane) { return i / 4 * 16 + lane / 8 * 4 + i % 4; }

/// One channel's states of this lane, from or to a row of N floats of any type; zeros where there are none.
template <int S, typename H>
__device__ __forceinline__ void load_states(float (&h)[S], const H* row, int d_state, int lane, bool there) {
#pragma unroll
  for (int i = 0; i < S; i += 4) {
    const int n = scan_state(i, lane);
    if (d_state % 4 == 0) {
      float v[4] = {};
      if (there && n < d_state) load<4>(row + n, v);
#pragma unroll
      for (int k = 0; k < 4; k++) h[i + k] = v[k];
    } else {
#pragma unroll
      for (int k = 0; k < 4; k++) h[i + k] = there && n + k < d_state ? to_float(row[n + k]) : 0.0f;
    }
  }
}
template <int S, typename H>
__device__ __forceinline__ void store_states(const float (&h)[S], H* row, int d_state, int lane, bool there) {
  if (!there) return;
#pragma unroll
  for (int i = 0; i < S; i += 4) {
    const int n = scan_state(i, lane);
    if (d_state % 4 == 0) {
      const float v[4] = {h[i], h[i + 1], h[i + 2], h[i + 3]};
      if (n < d_state) store<4>(row + n, v);
    } else {
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (n + k < d_state) row[n + k] = from_float<H>(h[i + k]);
    }
  }
}

/// Adds four values over the four lanes of a channel; lane l / 8 = k gets the sum of the k-th.
__device__ __forceinline__ float scatter_sum(const float (&v)[4], int lane) {
  const bool high = lane & 16, odd = lane & 8;
  const float a = (high ? v[2] : v[0]) + __shfl_xor_sync(kFullMask, high ? v[0] : v[2], 16);
  const float b = (high ? v[3] : v[1]) + __shfl_xor_sync(kFullMask, high ? v[1] : v[3], 16);
  return (odd ? b : a) + __shfl_xor_sync(kFullMask, odd ? a : b, 8);
}

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_of(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float reciprocal_of(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// 1 / (1 + e^-x), to a few units in the last place; x from -80 on, so that nothing overflows.
__device__ __forceinline__ float scan_sigmoid(float x) { return reciprocal_of(1.0f + exp2_of(fmaxf(x, -80.0f) * -kLog2E)); }
__device__ __forceinline__ float scan_silu(float x) { return fmaxf(x, -80.0f) * scan_sigmoid(x); }
__device__ __forceinline__ float scan_silu_gradient(float x) {
  const float s = scan_sigmoid(x);
  return s * (1.0f + fmaxf(x, -80.0f) * (1.0f - s));
}

/// The step of a token at which the state restarts: e^{step A} is 0 for every A < 0.
constexpr float kRestart = 2e38f;

/// log(1 + e^x). For 16-bit types a short form that is right to about 1e-5 of itself.
template <typename T>
__device__ __forceinline__ float scan_softplus(float x) {
  const float e = exp2_of(fabsf(x) * -kLog2E);
  const float tail = e < 0.03125f ? e * (1.0f - e * (0.5f - e * 0.33333333f)) : log2_of(1.0f + e) * kLn2;
  return fmaxf(x, 0.0f) + tail;
}
template <>
__device__ __forceinline__ float scan_softplus<f32>(float x) { return softplus(x); }
