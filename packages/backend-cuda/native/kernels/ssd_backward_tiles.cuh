// Layer: CUDA kernels. What the backward pass of the Mamba-2 scan reads of a tile: to shared memory, and ahead of that into the L2 cache.
// Knows ssd_backward_parts.cuh. Computes nothing.
#pragma once

#include "ssd_backward_parts.cuh"

/// A block's columns of a row of the batch.
template <typename T, int N, int Q>
struct SsdBackwardTiles {
  typedef SsdBackwardShared<T, N, Q> Shared;
  static constexpr int wide_n = Shared::wide_n, threads = Q * 4;
  const SsdBackward& p;
  const SsdBlock<Q>& block;
  const int b, tiles, width;
  const T* const x;
  const T* const dy;
  const T* const B;
  const T* const C;

  __device__ __forceinline__ SsdBackwardTiles(const SsdBackward& p, const SsdBlock<Q>& block, int b)
      : p(p), block(block), b(b), tiles(p.s.chunks * p.s.per_chunk), width(p.s.heads * p.s.head_dim),
        x(static_cast<const T*>(p.x) + row(p, b) * p.x_pitch + block.first),
        dy(static_cast<const T*>(p.dy) + row(p, b) * p.dy_pitch + block.first),
        B(static_cast<const T*>(p.B) + row(p, b) * p.B_pitch + column(p, block)),
        C(static_cast<const T*>(p.C) + row(p, b) * p.C_pitch + column(p, block)) {}
  static __device__ __forceinline__ long long row(const SsdBackward& p, int b) { return static_cast<long long>(b) * p.s.length; }
  static __device__ __forceinline__ long long column(const SsdBackward& p, const SsdBlock<Q>& block) {
    return static_cast<long long>(block.group) * p.s.d_state;
  }

  __device__ __forceinline__ void load(Shared& m, SsdBackwardHead<Q>* head, int q, const SsdTokens<Q>& t) const {
    const SsdSizes& s = p.s;
    const int heads = s.heads_per_block;
    load_tile<Q, N, threads>(m.B, B + static_cast<long long>(t.first) * p.B_pitch, p.B_pitch, t.count, s.d_state, p.aligned);
    load_tile<Q, N, threads>(m.C, C + static_cast<long long>(t.first) * p.C_pitch, p.C_pitch, t.count, s.d_state, p.aligned);
    load_tile<Q, Q, threads>(m.x, x + static_cast<long long>(t.first) * p.x_pitch, p.x_pitch, t.count, block.columns, p.aligned);
    load_tile<Q, Q, threads>(m.g, dy + static_cast<long long>(t.first) * p.dy_pitch, p.dy_pitch, p.dy ? t.count : 0, block.columns,
                    p.aligned && p.dy);
    const long long index = (static_cast<long long>(b) * tiles + q) * width + block.first;
    if (p.fine) {
      load_tile<Q, N, threads>(m.S, static_cast<const T*>(p.fine) + index * N, N, block.columns, N, true);
    } else {
      for (int i = threadIdx.x; i < Q * N / 2; i += threads) {
        const int r = i / (N / 2), n = i % (N / 2) * 2;
        const float* const at = p.states + (index + r) * s.d_state + n;
        const float low = r < block.columns && n < s.d_state ? at[0] : 0.0f;
        const float high = r < block.columns && n + 1 < s.d_state ? at[1] : 0.0f;
        store_pair<T>(m.S + r * wide_n + n, low, high);
      }
    }
    const long long at = (static_cast<long long>(b) * s.heads + block.head) * tiles + q;
    for (int i = threadIdx.x; i < heads * Q / 4; i += threads) {
      const int r = i / (Q / 4), k = i % (Q / 4) * 4;
      const long long from = (at + static_cast<long long>(r) * tiles) * Q + k;
      copy_16(head[r].a + k, p.a + from, 16);
      copy_16(head[r].dt + k, p.dt + from, 16);
    }
    if (p.restarts && threadIdx.x < Q / 4) {
      copy_16(m.restarts + threadIdx.x * 4, p.restarts + (static_cast<long long>(b) * tiles + q) * Q + threadIdx.x * 4, 16);
    }
    close_copies();
  }

  __device__ __forceinline__ void prefetch_tile(int q, const SsdTokens<Q>& t) const {
    const SsdSizes& s = p.s;
    constexpr int line = 128 / static_cast<int>(sizeof(T));
    for (int i = threadIdx.x; i < t.count * (N / line); i += threads) {
      const long long token = t.first + i / (N / line);
      const int n = i % (N / line) * line;
      if (n >= s.d_state) continue;
      prefetch(B + token * p.B_pitch + n);
      prefetch(C + token * p.C_pitch + n);
    }
    for (int i = threadIdx.x; i < t.count; i += threads) {
      prefetch(x + static_cast<long long>(t.first + i) * p.x_pitch);
      if (p.dy) prefetch(dy + static_cast<long long>(t.first + i) * p.dy_pitch);
    }
    const long long index = (static_cast<long long>(b) * tiles + q) * width + block.first;
    if (p.fine) {
      for (int i = threadIdx.x; i < block.columns * N / line; i += threads)
        prefetch(static_cast<const T*>(p.fine) + index * N + i * line);
    } else {
      for (int i = threadIdx.x; i < block.columns * s.d_state / 32; i += threads)
        prefetch(p.states + index * s.d_state + i * 32);
    }
  }
};
