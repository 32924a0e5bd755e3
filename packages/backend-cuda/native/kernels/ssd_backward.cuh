// Layer: CUDA kernels. The gradient of the Mamba-2 scan on the tensor cores: one block walks from a row's last tile to its first for
// its columns of (H, P), the gradient of the state in registers. Knows summed decays and the states that enter the tiles. Gives
// dB and dC of its columns alone, and the gradients of a and of x . dX, for ssd_small.cu to finish.
//
// Floor at B 8, L 2048, H 24, P 64, N 128 in bf16: x, dy, dx and the states of the tiles are 250 MB, dB and dC by heads, written and
// read, 400 MB: 0.22 ms at 3 TB/s; 4.2 M multiply-adds a tile of 64 tokens and head are 52 GFLOP, 0.09 ms at 600 TFLOP/s.
// With g = dy, M_ij = e^{a_i-a_j} (j <= i), K = (C_i . B_j) M, W_ij = (g_i . x_j) dt_j M, R = W (C_i . B_j), w_j = e^{a_Q-a_j} dt_j:
//   dX_j = sum_i K_ij g_i + e^{a_Q-a_j} dS B_j        dx = dt dX + D g
//   dC_i = sum_j W_ij B_j + e^{a_i} S^T g_i            dB_j = sum_i W_ij C_i + w_j dS^T x_j
//   d(dt_t A) = sum_{i>=t} (sum_j R_ij - sum_k R_ki + e^{a_i} g_i . S C_i) + sum_{j<t} w_j x_j . dS B_j + e^{a_Q} <dS, S>
//   dS <- e^{a_Q} dS + sum_i e^{a_i} g_i C_i^T
#pragma once

#include "ssd_backward_tiles.cuh"

template <typename T, int N, int Q>
__device__ __forceinline__ void ssd_backward(const SsdBackward& p) {
  typedef SsdBackwardShared<T, N, Q> Shared;
  constexpr int wide_n = Shared::wide_n, wide_q = Shared::wide_q, strips = Q / 16, groups16 = Q / 32, threads = Q * 4;
  extern __shared__ __align__(16) unsigned char memory[];
  Shared& m = *reinterpret_cast<Shared*>(memory);
  SsdBackwardHead<Q>* const head = reinterpret_cast<SsdBackwardHead<Q>*>(memory + sizeof(Shared));
  const SsdSizes& s = p.s;
  const int b = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int strip = warp % strips, half = warp / strips, n0 = half * (N / 2);
  const int row = strip * 16 + lane / 4, pair = lane % 4 * 2;
  const SsdBlock<Q> block(s, blockIdx.x);
  const int heads = s.heads_per_block, tiles = s.chunks * s.per_chunk, width = s.heads * s.head_dim;
  const int end = ssd_end(s, p.lengths, b);
  const long long row0 = static_cast<long long>(b) * s.length;
  const SsdBackwardTiles<T, N, Q> in(p, block, b);

  SsdState<N> dS;
  dS.load(p.dfinal ? p.dfinal + (static_cast<long long>(b) * width + block.first) * s.d_state : nullptr, block.columns,
          s.d_state, strip * 16, n0);
  dS.template to_tile<T>(m.dS, strip * 16, n0);
  float dD[groups16][4];
#pragma unroll
  for (int g = 0; g < groups16; g++) {
#pragma unroll
    for (int i = 0; i < 4; i++) dD[g][i] = 0.0f;
  }
  if (!p.restarts) {
    for (int i = threadIdx.x; i < Q; i += threads) m.restarts[i] = 0;
  }
  block.load_skip(m.skip, s, p.D, p.D_by_channel);
  SsdTokens<Q> tokens(s, s.chunks - 1, s.per_chunk - 1, end);
  if (tiles > 0) in.load(m, head, tiles - 1, tokens);

  for (int q = tiles - 1; q >= 0; q--) {
    const SsdTokens<Q> following = tokens.previous(s, end);
    wait_copies<0>();
    __syncthreads();
    if (q > 0) in.prefetch_tile(q - 1, following);
    const int last = m.restarts[Q - 1];
    for (int i = threadIdx.x; i < heads * Q; i += threads) {
      SsdBackwardHead<Q>& h = head[i / Q];
      const int t = i % Q;
      h.enter[t] = m.restarts[t] == 0 ? exp2_fast(h.a[t]) : 0.0f;
      h.leave[t] = m.restarts[t] == last ? exp2_fast(h.a[Q - 1] - h.a[t]) : 0.0f;
    }

    // K, W and the sums of R: rows i of the strip, every second block of 16 tokens j. Then sum_i K_ij g_i for rows j of the strip.
    float dX[groups16][2][4];
    {
      float cb[groups16][2][4];
#pragma unroll
      for (int g = 0; g < groups16; g++) {
#pragma unroll
        for (int i = 0; i < 8; i++) cb[g][i / 4][i % 4] = dX[g][i / 4][i % 4] = 0.0f;
      }
#pragma unroll 4
      for (int k = 0; k < N; k += 16) {
        typename Fragments<T>::A fa;
        typename Fragments<T>::B fb[2];
        load_a(fa, m.C + strip * 16 * wide_n + k, wide_n);
#pragma unroll
        for (int g = 0; g < groups16; g++) {
          const int j = 2 * g + half;
          if (j > strip) continue;
          load_b(fb, m.B + j * 16 * wide_n + k, wide_n);
          multiply<T>(cb[g][0], fa, fb[0]);
          multiply<T>(cb[g][1], fa, fb[1]);
        }
      }
      for (int r = 0; r < heads; r++) {
        SsdBackwardHead<Q>& h = head[r];
        if (r > 0) __syncthreads();
        const float ai[2] = {h.a[row], h.a[row + 8]};
        const int ri[2] = {m.restarts[row], m.restarts[row + 8]};
        float rows[2] = {0.0f, 0.0f};
#pragma unroll
        for (int g = 0; g < groups16; g++) {
          const int j0 = (2 * g + half) * 16;
          if (j0 > strip * 16) continue;
          const bool masked = j0 == strip * 16 || p.restarts;
          float gx[2][4];
#pragma unroll
          for (int i = 0; i < 8; i++) gx[i / 4][i % 4] = 0.0f;
#pragma unroll
          for (int c = 0; c < Q; c += 16) {
            if (block.head_of(c / 16) != r) continue;
            typename Fragments<T>::A fa;
            typename Fragments<T>::B fb[2];
            load_a(fa, m.g + strip * 16 * wide_q + c, wide_q);
            load_b(fb, m.x + j0 * wide_q + c, wide_q);
            multiply<T>(gx[0], fa, fb[0]);
            multiply<T>(gx[1], fa, fb[1]);
          }
#pragma unroll
          for (int t = 0; t < 2; t++) {
            const int j = j0 + t * 8 + pair;
            const float2 aj = *reinterpret_cast<const float2*>(h.a + j);
            const float2 dj = *reinterpret_cast<const float2*>(h.dt + j);
            float decay[4];
#pragma unroll
            for (int u = 0; u < 2; u++) {
              decay[2 * u] = exp2_fast(ai[u] - aj.x);
              decay[2 * u + 1] = exp2_fast(ai[u] - aj.y);
            }
            if (masked) {
              const int2 rj = *reinterpret_cast<const int2*>(m.restarts + j);
#pragma unroll
              for (int u = 0; u < 2; u++) {
                if (row + u * 8 < j || ri[u] != rj.x) decay[2 * u] = 0.0f;
                if (row + u * 8 <= j || ri[u] != rj.y) decay[2 * u + 1] = 0.0f;
              }
            }
            float columns[2] = {0.0f, 0.0f};
#pragma unroll
            for (int u = 0; u < 2; u++) {
              const int i = row + u * 8;
              const float low = decay[2 * u], high = decay[2 * u + 1];
              const float k_low = cb[g][t][2 * u] * low, k_high = cb[g][t][2 * u + 1] * high;
              const float g_low = gx[t][2 * u] * dj.x, g_high = gx[t][2 * u + 1] * dj.y;
              store_pair<T>(m.K + i * wide_q + j, k_low, k_high);
              // W adds up over the heads of the block, in its tile.
              const float2 w = r == 0 ? make_float2(0.0f, 0.0f) : load_pair<T>(m.W + i * wide_q + j);
              store_pair<T>(m.W + i * wide_q + j, w.x + g_low * low, w.y + g_high * high);
              rows[u] += g_low * k_low + g_high * k_high;
              columns[0] += g_low * k_low;
              columns[1] += g_high * k_high;
            }
#pragma unroll
            for (int u = 0; u < 2; u++) {
              columns[u] += __shfl_xor_sync(kFullMask, columns[u], 4);
              columns[u] += __shfl_xor_sync(kFullMask, columns[u], 8);
              columns[u] += __shfl_xor_sync(kFullMask, columns[u], 16);
            }
            if (lane < 4) *reinterpret_cast<float2*>(h.columns[strip] + j) = make_float2(columns[0], columns[1]);
          }
        }
#pragma unroll
        for (int u = 0; u < 2; u++) {
          rows[u] += __shfl_xor_sync(kFullMask, rows[u], 1);
          rows[u] += __shfl_xor_sync(kFullMask, rows[u], 2);
          if (lane % 4 == 0) h.rows[half][row + u * 8] = rows[u];
        }
        __syncthreads();
#pragma unroll
        for (int g = 0; g < groups16; g++) {
          const int column = (half * groups16 + g) * 16;
          if (block.head_of(half * groups16 + g) != r) continue;
#pragma unroll
          for (int i = 0; i < strips; i++) {
            if (i < strip) continue;
            typename Fragments<T>::A fa;
            typename Fragments<T>::B fb[2];
            load_a_transposed(fa, m.K + i * 16 * wide_q + strip * 16, wide_q);
            load_b_transposed(fb, m.g + i * 16 * wide_q + column, wide_q);
            multiply<T>(dX[g][0], fa, fb[0]);
            multiply<T>(dX[g][1], fa, fb[1]);
          }
        }
      }
    }

    // dX through the state, dx, dD and what the gradient of dt takes from x . dX.
    float through[groups16][2][4];
#pragma unroll
    for (int g = 0; g < groups16; g++) {
#pragma unroll
      for (int i = 0; i < 8; i++) through[g][i / 4][i % 4] = 0.0f;
    }
#pragma unroll 4
    for (int k = 0; k < N; k += 16) {
      typename Fragments<T>::A fa;
      typename Fragments<T>::B fb[2];
      load_a(fa, m.B + strip * 16 * wide_n + k, wide_n);
#pragma unroll
      for (int g = 0; g < groups16; g++) {
        load_b(fb, m.dS + (half * groups16 + g) * 16 * wide_n + k, wide_n);
        multiply<T>(through[g][0], fa, fb[0]);
        multiply<T>(through[g][1], fa, fb[1]);
      }
    }
    T* const dx = static_cast<T*>(p.dx) + (row0 + tokens.first + row) * p.dx_pitch + block.first;
#pragma unroll
    for (int g = 0; g < groups16; g++) {
      const int column0 = (half * groups16 + g) * 16;
      const SsdBackwardHead<Q>& h = head[block.head_of(half * groups16 + g)];
      const float leave[2] = {h.leave[row], h.leave[row + 8]}, dt[2] = {h.dt[row], h.dt[row + 8]};
      float inner_state[2] = {0.0f, 0.0f}, inner[2] = {0.0f, 0.0f};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int t = i / 2, u = i % 2, token = row + u * 8, column = column0 + t * 8 + pair;
        const float2 xv = load_pair<T>(m.x + token * wide_q + column);
        const float2 gv = load_pair<T>(m.g + token * wide_q + column);
        const float low_state = through[g][t][2 * u] * leave[u], high_state = through[g][t][2 * u + 1] * leave[u];
        const float low = dX[g][t][2 * u] + low_state, high = dX[g][t][2 * u + 1] + high_state;
        inner_state[u] += xv.x * low_state + xv.y * high_state;
        inner[u] += xv.x * low + xv.y * high;
        dD[g][2 * t] += gv.x * xv.x;
        dD[g][2 * t + 1] += gv.y * xv.y;
        if (!p.dx || token >= tokens.nominal || column >= block.columns) continue;
        const float2 skip = *reinterpret_cast<const float2*>(m.skip + column);
        const float v[2] = {low * dt[u] + gv.x * skip.x, high * dt[u] + gv.y * skip.y};
        T* const at = dx + u * 8 * p.dx_pitch + column;
        // Aligned rows have whole pairs.
        if (p.aligned) {
          store_pair<T>(at, v[0], v[1]);
        } else {
          at[0] = from_float<T>(v[0]);
          if (column + 1 < block.columns) at[1] = from_float<T>(v[1]);
        }
      }
#pragma unroll
      for (int u = 0; u < 2; u++) {
        inner_state[u] += __shfl_xor_sync(kFullMask, inner_state[u], 1);
        inner_state[u] += __shfl_xor_sync(kFullMask, inner_state[u], 2);
        inner[u] += __shfl_xor_sync(kFullMask, inner[u], 1);
        inner[u] += __shfl_xor_sync(kFullMask, inner[u], 2);
        if (lane % 4 == 0) {
          m.inner_state[column0 / 16][row + u * 8] = inner_state[u] * dt[u];
          m.inner[column0 / 16][row + u * 8] = inner[u];
        }
      }
    }

    T* const partial = static_cast<T*>(p.partial) + ((static_cast<long long>(b) * tiles + q) * gridDim.x + blockIdx.x) * 2 * Q * N;
    const auto store_partial = [&](T* to, const float (&sum)[N / 16][4]) {
#pragma unroll
      for (int t = 0; t < N / 32; t++) {
        const float v[8] = {sum[2 * t][0],     sum[2 * t][1],     sum[2 * t][2],     sum[2 * t][3],
                            sum[2 * t + 1][0], sum[2 * t + 1][1], sum[2 * t + 1][2], sum[2 * t + 1][3]};
        store<8>(to + ((warp * (N / 32) + t) * 32 + lane) * 8, v);
      }
    };

    // dC, rows i of the strip and half of N.
    {
      float sum[N / 16][4];
#pragma unroll
      for (int t = 0; t < N / 16; t++) sum[t][0] = sum[t][1] = sum[t][2] = sum[t][3] = 0.0f;
      float before[2] = {0.0f, 0.0f};
      for (int r = 0; r < heads; r++) {
        SsdBackwardHead<Q>& h = head[r];
#pragma unroll
        for (int c = 0; c < Q; c += 16) {
          if (block.head_of(c / 16) != r) continue;
          typename Fragments<T>::A fa;
          load_a(fa, m.g + strip * 16 * wide_q + c, wide_q);
          scale_rows<T>(fa, h.enter[row], h.enter[row + 8]);
#pragma unroll
          for (int t = 0; t < N / 32; t++) {
            typename Fragments<T>::B fb[2];
            load_b_transposed(fb, m.S + c * wide_n + n0 + t * 16, wide_n);
            multiply<T>(sum[2 * t], fa, fb[0]);
            multiply<T>(sum[2 * t + 1], fa, fb[1]);
          }
        }
#pragma unroll
        for (int u = 0; u < 2; u++) {
          float inner = 0.0f;
#pragma unroll
          for (int t = 0; t < N / 16; t++) {
            const float2 c = load_pair<T>(m.C + (row + u * 8) * wide_n + n0 + t * 8 + pair);
            inner += sum[t][2 * u] * c.x + sum[t][2 * u + 1] * c.y;
          }
          inner += __shfl_xor_sync(kFullMask, inner, 1);
          inner += __shfl_xor_sync(kFullMask, inner, 2);
          if (lane % 4 == 0) h.from_state[half][row + u * 8] = inner - before[u];
          before[u] = inner;
        }
      }
      if (p.partial) {
#pragma unroll
        for (int j = 0; j < strips; j++) {
          if (j > strip) continue;
          typename Fragments<T>::A fa;
          load_a(fa, m.W + strip * 16 * wide_q + j * 16, wide_q);
#pragma unroll
          for (int t = 0; t < N / 32; t++) {
            typename Fragments<T>::B fb[2];
            load_b_transposed(fb, m.B + j * 16 * wide_n + n0 + t * 16, wide_n);
            multiply<T>(sum[2 * t], fa, fb[0]);
            multiply<T>(sum[2 * t + 1], fa, fb[1]);
          }
        }
        store_partial(partial + Q * N, sum);
      }
    }

    // dB, rows j of the strip and half of N.
    if (p.partial) {
      float sum[N / 16][4];
#pragma unroll
      for (int t = 0; t < N / 16; t++) sum[t][0] = sum[t][1] = sum[t][2] = sum[t][3] = 0.0f;
#pragma unroll
      for (int c = 0; c < Q; c += 16) {
        const SsdBackwardHead<Q>& h = head[block.head_of(c / 16)];
        typename Fragments<T>::A fa;
        load_a(fa, m.x + strip * 16 * wide_q + c, wide_q);
        scale_rows<T>(fa, h.leave[row] * h.dt[row], h.leave[row + 8] * h.dt[row + 8]);
#pragma unroll
        for (int t = 0; t < N / 32; t++) {
          typename Fragments<T>::B fb[2];
          load_b_transposed(fb, m.dS + c * wide_n + n0 + t * 16, wide_n);
          multiply<T>(sum[2 * t], fa, fb[0]);
          multiply<T>(sum[2 * t + 1], fa, fb[1]);
        }
      }
#pragma unroll
      for (int i = 0; i < strips; i++) {
        if (i < strip) continue;
        typename Fragments<T>::A fa;
        load_a_transposed(fa, m.W + i * 16 * wide_q + strip * 16, wide_q);
#pragma unroll
        for (int t = 0; t < N / 32; t++) {
          typename Fragments<T>::B fb[2];
          load_b_transposed(fb, m.C + i * 16 * wide_n + n0 + t * 16, wide_n);
          multiply<T>(sum[2 * t], fa, fb[0]);
          multiply<T>(sum[2 * t + 1], fa, fb[1]);
        }
      }
      store_partial(partial, sum);
    }

    // <dS, S>, then dS of the state that enters this tile: rows of the strip (columns of the block), half of N.
    {
      const SsdBackwardHead<Q>& h = head[block.head_of(strip)];
      const float kept = last == 0 ? exp2_fast(h.a[Q - 1]) : 0.0f;
      float product = 0.0f;
      dS.each(strip * 16, n0, [&](int r, int n, float& low, float& high) {
        const float2 v = load_pair<T>(m.S + r * wide_n + n);
        product += low * v.x + high * v.y;
        low *= kept;
        high *= kept;
      });
      product = warp_sum(product);
      if (lane == 0) m.state_product[warp] = product * kept;
#pragma unroll
      for (int i = 0; i < Q; i += 16) {
        typename Fragments<T>::A fa;
        load_a_transposed(fa, m.g + i * wide_q + strip * 16, wide_q);
        scale_inner<T>(fa, h.enter + i);
#pragma unroll
        for (int t = 0; t < N / 32; t++) {
          typename Fragments<T>::B fb[2];
          load_b_transposed(fb, m.C + i * wide_n + n0 + t * 16, wide_n);
          multiply<T>(dS.at[2 * t], fa, fb[0]);
          multiply<T>(dS.at[2 * t + 1], fa, fb[1]);
        }
      }
    }
    __syncthreads();
    if (q > 0) in.load(m, head, q - 1, following);
    dS.template to_tile<T>(m.dS, strip * 16, n0);

    for (int r = warp; r < heads; r += 2 * strips) ssd_sum_decays<T, N, Q>(p, m, head[r], block, r, q);
    tokens = following;
  }

  if (p.dinitial) {
    dS.store(p.dinitial + (static_cast<long long>(b) * width + block.first) * s.d_state, block.columns, s.d_state, strip * 16, n0);
  }
  if (p.dD) {
    __syncthreads();
    float* const columns = reinterpret_cast<float*>(m.K);
#pragma unroll
    for (int g = 0; g < groups16; g++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float v = dD[g][i];
        v += __shfl_xor_sync(kFullMask, v, 4);
        v += __shfl_xor_sync(kFullMask, v, 8);
        v += __shfl_xor_sync(kFullMask, v, 16);
        if (lane < 4) columns[strip * Q + (half * groups16 + g) * 16 + i / 2 * 8 + pair + i % 2] = v;
      }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < block.columns; c += threads) {
      float v = 0.0f;
      for (int i = 0; i < strips; i++) v += columns[i * Q + c];
      p.dD[static_cast<long long>(b) * width + block.first + c] = v;
    }
  }
}
