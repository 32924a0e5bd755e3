// Layer: CUDA kernels. The Mamba-2 scan on the tensor cores: one block walks over the tiles of a row for its columns of (H, P), the
// state in registers. Knows decays that are summed already (ssd_small.cu). Knows no gradient.
//
// Floor at B 8, L 2048, H 24, P 64, N 128 in bf16: x, y, B, C once are 110 MB, 0.037 ms at 3 TB/s (0.053 ms with states
// every 256 tokens); 1.8 M multiply-adds a tile of 64 tokens and head are 22.5 GFLOP, 0.04 ms at 600 TFLOP/s. Matrices C B^T and
// states of tiles never reach memory. With Q = 64 and j <= i in a tile, e^{a_i - a_j} from the difference:
//   y_i = sum_j (C_i . B_j) e^{a_i-a_j} dt_j x_j + e^{a_i} S C_i,   S <- e^{a_Q} S + sum_j e^{a_Q-a_j} dt_j x_j B_j^T.
#pragma once

#include "ssd.cuh"

struct SsdForward {
  const void* x;
  const void* B;
  const void* C;
  const void* z;
  const float* D;
  const float* initial;
  const float* dt;
  const float* a;
  const int* restarts;
  const int* lengths;
  /// Where each saved chunk's state is known: a block for each, which makes no final state.
  const float* start;
  void* y;
  float* states;
  /// (B, tiles, H, P, N padded): the state that enters each tile, as the backward pass reads it.
  void* fine;
  float* final_state;
  int x_pitch, B_pitch, C_pitch, z_pitch, y_pitch;
  SsdSizes s;
  int D_by_channel, aligned;
};

template <typename T, int N, int Q>
struct SsdForwardShared {
  static constexpr int wide_n = N + 8, wide_q = Q + 8;
  alignas(16) T C[Q * wide_n];
  T B[2][Q * wide_n];
  T x[2][Q * wide_q];
  T S[Q * wide_n];
  T K[Q * wide_q];
  /// For up to Q / 16 heads: sums of decays and steps, and e^{a_Q - a_j} dt_j.
  float a[2][Q / 16 * Q];
  float dt[2][Q / 16 * Q];
  float weight[Q / 16 * Q];
  float skip[Q];
  int restarts[2][Q];
};

template <typename T, int N, int Q>
__device__ __forceinline__ void ssd_forward(const SsdForward& p) {
  typedef SsdForwardShared<T, N, Q> Shared;
  constexpr int wide_n = Shared::wide_n, wide_q = Shared::wide_q, strips = Q / 16, groups16 = Q / 32, threads = Q * 4;
  extern __shared__ __align__(16) unsigned char memory[];
  Shared& m = *reinterpret_cast<Shared*>(memory);
  const SsdSizes& s = p.s;
  const int b = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int strip = warp % strips, half = warp / strips, n0 = half * (N / 2);
  const SsdBlock<Q> block(s, blockIdx.x);
  const int heads = s.heads_per_block, tiles = s.chunks * s.per_chunk, width = s.heads * s.head_dim;
  const int end = ssd_end(s, p.lengths, b);
  const int q_first = p.start ? blockIdx.z * s.per_chunk : 0, q_end = p.start ? q_first + s.per_chunk : tiles;
  const T* const x = static_cast<const T*>(p.x) + static_cast<long long>(b) * s.length * p.x_pitch + block.first;
  const long long group_column = static_cast<long long>(block.group) * s.d_state;
  const T* const B = static_cast<const T*>(p.B) + static_cast<long long>(b) * s.length * p.B_pitch + group_column;
  const T* const C = static_cast<const T*>(p.C) + static_cast<long long>(b) * s.length * p.C_pitch + group_column;
  const auto state_at = [&](long long index) { return (index * width + block.first) * s.d_state; };

  const auto load_rows = [&](int q, const SsdTokens<Q>& t, int stage) {
    load_tile<Q, N, threads>(m.B[stage], B + static_cast<long long>(t.first) * p.B_pitch, p.B_pitch, t.count, s.d_state, p.aligned);
    load_tile<Q, Q, threads>(m.x[stage], x + static_cast<long long>(t.first) * p.x_pitch, p.x_pitch, t.count, block.columns, p.aligned);
    const long long at = (static_cast<long long>(b) * s.heads + block.head) * tiles + q;
    for (int i = threadIdx.x; i < heads * Q / 4; i += threads) {
      const long long from = (at + static_cast<long long>(i / (Q / 4)) * tiles) * Q + i % (Q / 4) * 4;
      copy_16(m.a[stage] + i * 4, p.a + from, 16);
      copy_16(m.dt[stage] + i * 4, p.dt + from, 16);
    }
    if (p.restarts && threadIdx.x < Q / 4) {
      copy_16(m.restarts[stage] + threadIdx.x * 4, p.restarts + (static_cast<long long>(b) * tiles + q) * Q + threadIdx.x * 4, 16);
    }
  };
  const auto load_C = [&](const SsdTokens<Q>& t) {
    load_tile<Q, N, threads>(m.C, C + static_cast<long long>(t.first) * p.C_pitch, p.C_pitch, t.count, s.d_state, p.aligned);
  };

  SsdState<N> state;
  const float* const start = p.start ? p.start + state_at(static_cast<long long>(b) * s.chunks + blockIdx.z)
                                     : p.initial ? p.initial + state_at(b) : nullptr;
  state.load(start, block.columns, s.d_state, strip * 16, n0);
  state.template to_tile<T>(m.S, strip * 16, n0);
  if (!p.restarts) {
    for (int i = threadIdx.x; i < 2 * Q; i += blockDim.x) m.restarts[0][i] = 0;
  }
  block.load_skip(m.skip, s, p.D, p.D_by_channel);
  SsdTokens<Q> tokens(s, p.start ? blockIdx.z : 0, 0, end);
  if (q_first < q_end) {
    load_rows(q_first, tokens, 0);
    if (p.y) load_C(tokens);
  }
  close_copies();

  for (int q = q_first; q < q_end; q++) {
    const int stage = (q - q_first) % 2;
    const SsdTokens<Q> following = tokens.next(s, end);
    wait_copies<0>();
    __syncthreads();
    if (q + 1 < q_end) load_rows(q + 1, following, 1 - stage);
    close_copies();
    const T *const tile_B = m.B[stage], *const tile_x = m.x[stage];
    const float *const a = m.a[stage], *const dt = m.dt[stage];
    const int* const restarts = m.restarts[stage];
    const int last = restarts[Q - 1];
    for (int i = threadIdx.x; i < heads * Q; i += threads) {
      const float decay = exp2_fast(a[i / Q * Q + Q - 1] - a[i]);
      m.weight[i] = restarts[i % Q] == last ? decay * dt[i] : 0.0f;
    }

    if (p.states && tokens.part == 0) {
      state.store(p.states + state_at(static_cast<long long>(b) * s.chunks + tokens.chunk), block.columns, s.d_state,
                  strip * 16, n0);
    }
    if (p.fine) {
      constexpr int vectors = N / kVector<T>;
      T* const to = static_cast<T*>(p.fine) + ((static_cast<long long>(b) * tiles + q) * width + block.first) * N;
      for (int i = threadIdx.x; i < block.columns * vectors; i += threads) {
        const int row = i / vectors, n = i % vectors * kVector<T>;
        *reinterpret_cast<uint4*>(to + row * N + n) = *reinterpret_cast<const uint4*>(m.S + row * wide_n + n);
      }
    }

    // Rows i of the strip: C B^T for every second block of 16 tokens j, and C S for half of the columns.
    const int row = strip * 16 + lane / 4;
    float cb[groups16][2][4], y[groups16][2][4];
    if (p.y) {
#pragma unroll
      for (int g = 0; g < groups16; g++) {
#pragma unroll
        for (int i = 0; i < 8; i++) cb[g][i / 4][i % 4] = y[g][i / 4][i % 4] = 0.0f;
      }
#pragma unroll 4
      for (int k = 0; k < N; k += 16) {
        typename Fragments<T>::A fa;
        typename Fragments<T>::B fb[2];
        load_a(fa, m.C + strip * 16 * wide_n + k, wide_n);
#pragma unroll
        for (int g = 0; g < groups16; g++) {
          const int j = 2 * g + half;
          if (j <= strip) {
            load_b(fb, tile_B + j * 16 * wide_n + k, wide_n);
            multiply<T>(cb[g][0], fa, fb[0]);
            multiply<T>(cb[g][1], fa, fb[1]);
          }
          load_b(fb, m.S + (half * groups16 + g) * 16 * wide_n + k, wide_n);
          multiply<T>(y[g][0], fa, fb[0]);
          multiply<T>(y[g][1], fa, fb[1]);
        }
      }
#pragma unroll
      for (int g = 0; g < groups16; g++) {
        const float* const ah = a + block.head_of(half * groups16 + g) * Q;
        const float low = restarts[row] == 0 ? exp2_fast(ah[row]) : 0.0f;
        const float high = restarts[row + 8] == 0 ? exp2_fast(ah[row + 8]) : 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) y[g][i / 4][i % 4] *= i % 4 < 2 ? low : high;
      }
      for (int r = 0; r < heads; r++) {
        if (r > 0) __syncthreads();
        const float ai[2] = {a[r * Q + row], a[r * Q + row + 8]};
        const int ri[2] = {restarts[row], restarts[row + 8]};
#pragma unroll
        for (int g = 0; g < groups16; g++) {
          if (2 * g + half > strip) continue;
          const bool masked = 2 * g + half == strip || p.restarts;
#pragma unroll
          for (int t = 0; t < 2; t++) {
            const int j = (2 * g + half) * 16 + t * 8 + lane % 4 * 2;
            const float2 aj = *reinterpret_cast<const float2*>(a + r * Q + j);
            const float2 dj = *reinterpret_cast<const float2*>(dt + r * Q + j);
            float v[4];
#pragma unroll
            for (int h = 0; h < 2; h++) {
              v[2 * h] = cb[g][t][2 * h] * (exp2_fast(ai[h] - aj.x) * dj.x);
              v[2 * h + 1] = cb[g][t][2 * h + 1] * (exp2_fast(ai[h] - aj.y) * dj.y);
            }
            if (masked) {
              const int2 rj = *reinterpret_cast<const int2*>(restarts + j);
#pragma unroll
              for (int h = 0; h < 2; h++) {
                if (row + h * 8 < j || ri[h] != rj.x) v[2 * h] = 0.0f;
                if (row + h * 8 <= j || ri[h] != rj.y) v[2 * h + 1] = 0.0f;
              }
            }
            store_pair<T>(m.K + row * wide_q + j, v[0], v[1]);
            store_pair<T>(m.K + (row + 8) * wide_q + j, v[2], v[3]);
          }
        }
        __syncthreads();
        if (r == 0 && q + 1 < q_end) load_C(following);
        if (r == 0) close_copies();
#pragma unroll
        for (int g = 0; g < groups16; g++) {
          const int column = (half * groups16 + g) * 16;
          if (block.head_of(half * groups16 + g) != r) continue;
#pragma unroll
          for (int j = 0; j < strips; j++) {
            if (j > strip) continue;
            typename Fragments<T>::A fa;
            typename Fragments<T>::B fb[2];
            load_a(fa, m.K + strip * 16 * wide_q + j * 16, wide_q);
            load_b_transposed(fb, tile_x + j * 16 * wide_q + column, wide_q);
            multiply<T>(y[g][0], fa, fb[0]);
            multiply<T>(y[g][1], fa, fb[1]);
          }
        }
      }
    } else {
      __syncthreads();
    }

    // The state: rows of the strip (columns of the block), half of N.
    const int r = block.head_of(strip);
    const float kept = last == 0 ? exp2_fast(a[r * Q + Q - 1]) : 0.0f;
#pragma unroll
    for (int t = 0; t < N / 16; t++) {
#pragma unroll
      for (int i = 0; i < 4; i++) state.at[t][i] *= kept;
    }
#pragma unroll
    for (int j = 0; j < Q; j += 16) {
      typename Fragments<T>::A fa;
      load_a_transposed(fa, tile_x + j * wide_q + strip * 16, wide_q);
      scale_inner<T>(fa, m.weight + r * Q + j);
#pragma unroll
      for (int t = 0; t < N / 32; t++) {
        typename Fragments<T>::B fb[2];
        load_b_transposed(fb, tile_B + j * wide_n + n0 + t * 16, wide_n);
        multiply<T>(state.at[2 * t], fa, fb[0]);
        multiply<T>(state.at[2 * t + 1], fa, fb[1]);
      }
    }
    state.template to_tile<T>(m.S, strip * 16, n0);

    if (p.y) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int token = row + h * 8;
        if (token >= tokens.nominal) continue;
        const long long at = static_cast<long long>(b) * s.length + tokens.first + token;
        T* const to = static_cast<T*>(p.y) + at * p.y_pitch + block.first;
        const T* const z = p.z && token < tokens.count ? static_cast<const T*>(p.z) + at * p.z_pitch + block.first : nullptr;
#pragma unroll
        for (int i = 0; i < 2 * groups16; i++) {
          const int column = (half * groups16 + i / 2) * 16 + i % 2 * 8 + lane % 4 * 2;
          float v[2] = {y[i / 2][i % 2][2 * h], y[i / 2][i % 2][2 * h + 1]};
          if (p.D) {
            const float2 xv = load_pair<T>(tile_x + token * wide_q + column);
            const float2 skip = *reinterpret_cast<const float2*>(m.skip + column);
            v[0] += xv.x * skip.x;
            v[1] += xv.y * skip.y;
          }
          if (z) {
            if (column < block.columns) v[0] *= silu(to_float(z[column]));
            if (column + 1 < block.columns) v[1] *= silu(to_float(z[column + 1]));
          }
          // Aligned rows have whole pairs.
          if (p.aligned) {
            if (column < block.columns) store_pair<T>(to + column, v[0], v[1]);
          } else {
            if (column < block.columns) to[column] = from_float<T>(v[0]);
            if (column + 1 < block.columns) to[column + 1] = from_float<T>(v[1]);
          }
        }
      }
    }
    tokens = following;
  }
  if (p.final_state && !p.start) state.store(p.final_state + state_at(b), block.columns, s.d_state, strip * 16, n0);
}
