// Layer: CUDA kernels. The Mamba-2 scan of a few tokens, one after the other: eight lanes have a row of the state, which is read and
// written once and may be replaced in place. Of a single token in a form without branches. Knows the scan's layouts.
//
// H is what the state lies in: f32, or 16 bits, which are half of the bytes that a token of many rows is bound by. y is made of the state
// in f32, before it is rounded.
#pragma once

#include "overlap.cuh"
#include "ssd.cuh"

struct SsdStep {
  const void* x;
  const void* dt;
  const float* A;
  const void* B;
  const void* C;
  const void* z;
  const float* D;
  const float* bias;
  const void* initial;
  const int* seq;
  const int* lengths;
  void* y;
  float* states;
  void* final_state;
  int x_pitch, dt_pitch, B_pitch, C_pitch, z_pitch, y_pitch;
  SsdSizes s;
  int D_by_channel, softplus;
  float low, high;
};

/// A few tokens, one after the other: eight lanes have a row of the state, N up to 256. Reads and writes the state once; a state may
/// be replaced in place.
template <typename T, typename H>
__device__ __forceinline__ void ssd_step(const SsdStep& p) {
  const SsdSizes& s = p.s;
  const int part = threadIdx.x % 8, b = blockIdx.y, width = s.heads * s.head_dim;
  const int at = (blockIdx.x * blockDim.x + threadIdx.x) / 8, channel = min(at, width - 1), head = channel / s.head_dim;
  const bool there = at < width;
  const int column = head / (s.heads / s.groups) * s.d_state;
  // Element e of vector k is n = 32 k + 4 part + e.
  constexpr int vectors = 8;
  float state[vectors][4];
  const auto row_of = [&](long long index) { return (index * width + channel) * s.d_state; };
  const auto store_to = [&](auto* to) {
#pragma unroll
    for (int k = 0; k < vectors; k++) {
      const int n = 32 * k + 4 * part;
      if (!there || n >= s.d_state) continue;
      if (s.d_state % 4 == 0) {
        store<4>(to + n, state[k]);
      } else {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const float one[1] = {state[k][e]};
          if (n + e < s.d_state) store<1>(to + n + e, one);
        }
      }
    }
  };
  const H* const from = p.initial ? static_cast<const H*>(p.initial) + row_of(b) : nullptr;
  const int row_bytes = s.d_state * static_cast<int>(sizeof(H));
  let_next_start();
  if (from && there && part == 0 && row_bytes % 16 == 0) prefetch_row(from, row_bytes);
  wait_for_previous();
#pragma unroll
  for (int k = 0; k < vectors; k++) {
    const int n = 32 * k + 4 * part;
#pragma unroll
    for (int e = 0; e < 4; e++) state[k][e] = 0.0f;
    if (s.d_state % 4 == 0) {
      if (from && n < s.d_state) load<4>(from + n, state[k]);
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (from && n + e < s.d_state) state[k][e] = to_float(from[n + e]);
    }
  }
  const int end = ssd_end(s, p.lengths, b);
  const float skip = p.D ? p.D[p.D_by_channel ? channel : head] : 0.0f, A = p.A[head] * kLog2E, bias = p.bias ? p.bias[head] : 0.0f;
  for (int t = 0; t < s.length; t++) {
    const long long row = static_cast<long long>(b) * s.length + t;
    if (p.states && t % s.chunk_size == 0) store_to(p.states + row_of(static_cast<long long>(b) * s.chunks + t / s.chunk_size));
    T* const y = static_cast<T*>(p.y) + row * p.y_pitch + channel;
    if (t >= end) {
      if (there && part == 0) *y = from_float<T>(0.0f);
      continue;
    }
    const float x = to_float(static_cast<const T*>(p.x)[row * p.x_pitch + channel]);
    float step = to_float(static_cast<const T*>(p.dt)[row * p.dt_pitch + head]) + bias;
    const T* const B = static_cast<const T*>(p.B) + row * p.B_pitch + column;
    const T* const C = static_cast<const T*>(p.C) + row * p.C_pitch + column;
    float Bt[vectors][4], Ct[vectors][4];
#pragma unroll
    for (int k = 0; k < vectors; k++) {
      const int n = 32 * k + 4 * part;
#pragma unroll
      for (int e = 0; e < 4; e++) {
        Bt[k][e] = n + e < s.d_state ? to_float(B[n + e]) : 0.0f;
        Ct[k][e] = n + e < s.d_state ? to_float(C[n + e]) : 0.0f;
      }
    }
    if (p.softplus) step = softplus(step);
    step = fminf(fmaxf(step, p.low), p.high);
    const float decay = p.seq && t > 0 && p.seq[row] != p.seq[row - 1] ? 0.0f : exp2_fast(step * A), scaled = step * x;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < vectors; k++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        state[k][e] = decay * state[k][e] + scaled * Bt[k][e];
        sum += state[k][e] * Ct[k][e];
      }
    }
#pragma unroll
    for (int i = 1; i < 8; i <<= 1) sum += __shfl_xor_sync(kFullMask, sum, i);
    if (!there || part > 0) continue;
    sum += skip * x;
    if (p.z) sum *= silu(to_float(static_cast<const T*>(p.z)[row * p.z_pitch + channel]));
    *y = from_float<T>(sum);
  }
  store_to(static_cast<H*>(p.final_state) + row_of(b));
}

/// Rows of the state that 128 threads have.
constexpr int kStepRows = 16;

/// A lane's part of a row of the state, in vectors of W, which are 16 bytes of H: element e of vector k is n = W (8 k + part) + e.
template <typename H, int N>
struct SsdRow {
  static constexpr int W = kVector<H>, vectors = N / W / 8;
  float at[vectors][W];

  __device__ __forceinline__ void load(const H* row, int part) {
#pragma unroll
    for (int k = 0; k < vectors; k++) {
#pragma unroll
      for (int e = 0; e < W; e++) at[k][e] = 0.0f;
      if (row) ::load<W>(row + W * (8 * k + part), at[k]);
    }
  }
  __device__ __forceinline__ void store(H* row, int part) const {
#pragma unroll
    for (int k = 0; k < vectors; k++) ::store<W>(row + W * (8 * k + part), at[k]);
  }
};

/// A token's step after bias, softplus and limits.
template <typename T>
__device__ __forceinline__ float ssd_dt(const SsdStep& p, int b, int head) {
  float step = to_float(*(static_cast<const T*>(p.dt) + static_cast<long long>(b) * p.dt_pitch + head)) + (p.bias ? p.bias[head] : 0.0f);
  if (p.softplus) step = softplus(step);
  return fminf(fmaxf(step, p.low), p.high);
}

/// One token of a channel: replaces the row and gives y to the first of its eight lanes. operands(k) are B and C of the lane's vector k.
template <typename T, typename Row, typename Operands>
__device__ __forceinline__ void ssd_token(const SsdStep& p, Row& row, int b, int channel, int part, float x, Operands operands) {
  const int head = channel / p.s.head_dim;
  const float step = ssd_dt<T>(p, b, head), decay = exp2_fast(step * (p.A[head] * kLog2E)), scaled = step * x;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < Row::vectors; k++) {
    float B[Row::W], C[Row::W];
    operands(k, B, C);
#pragma unroll
    for (int e = 0; e < Row::W; e++) {
      float& h = row.at[k][e];
      h = fmaf(decay, h, scaled * B[e]);
      sum = fmaf(h, C[e], sum);
    }
  }
#pragma unroll
  for (int i = 1; i < 8; i <<= 1) sum += __shfl_xor_sync(kFullMask, sum, i);
  if (part > 0) return;
  sum = fmaf(p.D ? p.D[p.D_by_channel ? channel : head] : 0.0f, x, sum);
  if (p.z) sum *= silu(to_float(*(static_cast<const T*>(p.z) + static_cast<long long>(b) * p.z_pitch + channel)));
  static_cast<T*>(p.y)[static_cast<long long>(b) * p.y_pitch + channel] = from_float<T>(sum);
}

/// B and C of a row of tokens as they lie in memory, in vectors as the state has them.
template <typename T>
struct SsdOperands {
  const T* B;
  const T* C;
  int part;

  __device__ __forceinline__ SsdOperands(const SsdStep& p, int b, int channel, int part) : part(part) {
    const int column = channel / p.s.head_dim / (p.s.heads / p.s.groups) * p.s.d_state;
    B = static_cast<const T*>(p.B) + static_cast<long long>(b) * p.B_pitch + column;
    C = static_cast<const T*>(p.C) + static_cast<long long>(b) * p.C_pitch + column;
  }
  template <int W>
  __device__ __forceinline__ void operator()(int k, float (&to_B)[W], float (&to_C)[W]) const {
    load_row<W>(B + W * (8 * k + part), to_B);
    load_row<W>(C + W * (8 * k + part), to_C);
  }
  /// In accesses of up to 16 bytes.
  template <int W>
  static __device__ __forceinline__ void load_row(const T* from, float (&to)[W]) {
    constexpr int most = W < kVector<T> ? W : kVector<T>;
#pragma unroll
    for (int i = 0; i < W; i += most) load<most>(from + i, *reinterpret_cast<float(*)[most]>(to + i));
  }
};

/// A single token: no packing, no padding, no saved states; whole vectors everywhere. Block: kStepRows rows of a state.
template <typename T, typename H, int N>
__device__ __forceinline__ void ssd_single(const SsdStep& p) {
  const int part = threadIdx.x % 8, b = blockIdx.y, channel = blockIdx.x * kStepRows + threadIdx.x / 8;
  const long long at = (static_cast<long long>(b) * p.s.heads * p.s.head_dim + channel) * p.s.d_state;
  const H* const from = p.initial ? static_cast<const H*>(p.initial) + at : nullptr;
  let_next_start();
  if (from && part == 0) prefetch_row(from, p.s.d_state * static_cast<int>(sizeof(H)));
  wait_for_previous();
  SsdRow<H, N> row;
  row.load(from, part);
  const float x = to_float(static_cast<const T*>(p.x)[static_cast<long long>(b) * p.x_pitch + channel]);
  ssd_token<T>(p, row, b, channel, part, x, SsdOperands<T>(p, b, channel, part));
  row.store(static_cast<H*>(p.final_state) + at, part);
}
