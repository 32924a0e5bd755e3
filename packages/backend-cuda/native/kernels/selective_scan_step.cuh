// Layer: CUDA kernels. The selective scan's parameters, and the scan of a few tokens, one after the other. Knows the scan's layouts.
// Knows no grid: blocks of decoding share it.
#pragma once

#include "overlap.cuh"
#include "selective_scan.cuh"

struct ScanForward {
  const void* u;
  const void* delta;
  const float* A;
  const void* B;
  const void* C;
  const void* z;
  const float* D;
  const float* bias;
  /// f32, but what the kernel says in a scan of a few tokens.
  const void* initial;
  const int* seq;
  const int* lengths;
  /// Where each saved chunk's state is known: a block for each, which makes no final state.
  const float* start;
  void* y;
  float* states;
  /// (B, chunks, per chunk, D, N): the states every kScanBack tokens.
  float* fine;
  void* final_state;
  int u_pitch, delta_pitch, B_pitch, C_pitch, z_pitch, y_pitch;
  ScanSizes s;
  int softplus, aligned, fine_per_chunk;
};

/// A few tokens, one after the other: a warp has eight channels of a block of 32, everything straight from memory, no tiles. A state
/// may be replaced in place; it lies in H. delta(row, channel) is a token's step before the bias.
template <typename T, int S, typename H, typename Delta>
__device__ __forceinline__ void selective_scan_step(const ScanForward& p, int of, int warp, int b, Delta delta) {
  const ScanSizes& s = p.s;
  const int lane = threadIdx.x % 32;
  const ScanBlock block(s, of);
  const int channel = block.first + warp * 8 + lane % 8;
  const bool there = channel < block.end;
  const int at = there ? channel : block.first;
  float A[S], h[S];
  const int end = scan_end(s, p.lengths, b);
  load_states<S>(A, p.A + static_cast<long long>(at) * s.d_state, s.d_state, lane, there);
  const auto state_row = [&](long long index) { return (index * s.channels + at) * s.d_state; };
  load_states<S>(h, p.initial ? static_cast<const H*>(p.initial) + state_row(b) : nullptr, s.d_state, lane, there && p.initial);
  const float bias = p.bias ? p.bias[at] : 0.0f, skip = p.D ? p.D[at] : 0.0f;
  for (int t = 0; t < s.length; t++) {
    const long long row = static_cast<long long>(b) * s.length + t;
    if (p.states && t % s.chunk_size == 0)
      store_states<S>(h, p.states + state_row(static_cast<long long>(b) * s.chunks + t / s.chunk_size), s.d_state, lane, there);
    T* const y = static_cast<T*>(p.y) + row * p.y_pitch + at;
    if (t >= end) {
      if (there && lane < 8) *y = from_float<T>(0.0f);
      continue;
    }
    const float u = to_float(*(static_cast<const T*>(p.u) + row * p.u_pitch + at));
    float step = delta(row, at) + bias;
    if (p.softplus) step = scan_softplus<T>(step);
    const float scaled = step * u, until = (p.seq && t > 0 && p.seq[row] != p.seq[row - 1] ? kRestart : step) * kLog2E;
    const T* const B = static_cast<const T*>(p.B) + row * p.B_pitch + block.group * s.d_state;
    const T* const C = static_cast<const T*>(p.C) + row * p.C_pitch + block.group * s.d_state;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < S; i += 4) {
      const int n = scan_state(i, lane);
      float Bt[4] = {}, Ct[4] = {};
      if (p.aligned && n + 4 <= s.d_state) {
        load<4>(B + n, Bt);
        load<4>(C + n, Ct);
      } else {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          if (n + j >= s.d_state) break;
          Bt[j] = to_float(*(B + n + j));
          Ct[j] = to_float(*(C + n + j));
        }
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        h[i + j] = fmaf(exp2_of(until * A[i + j]), h[i + j], scaled * Bt[j]);
        sum = fmaf(h[i + j], Ct[j], sum);
      }
    }
    sum += __shfl_xor_sync(kFullMask, sum, 8);
    sum += __shfl_xor_sync(kFullMask, sum, 16);
    if (there && lane < 8) {
      sum = fmaf(skip, u, sum);
      if (p.z) sum *= scan_silu(to_float(*(static_cast<const T*>(p.z) + row * p.z_pitch + at)));
      *y = from_float<T>(sum);
    }
  }
  store_states<S>(h, static_cast<H*>(p.final_state) + state_row(b), s.d_state, lane, there);
}
template <typename T, int S, typename H>
__device__ __forceinline__ void selective_scan_step(const ScanForward& p, int of, int warp, int b) {
  selective_scan_step<T, S, H>(p, of, warp, b, [&](long long row, int channel) {
    return to_float(*(static_cast<const T*>(p.delta) + row * p.delta_pitch + channel));
  });
}
