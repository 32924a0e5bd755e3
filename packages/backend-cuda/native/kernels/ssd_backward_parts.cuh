// Layer: CUDA kernels. What the backward pass of the Mamba-2 scan is given, what it holds in shared memory, and its last sums in a tile:
// those along time. Knows ssd.cuh. Computes no product.
#pragma once

#include "ssd.cuh"

struct SsdBackward {
  const void* x;
  const void* B;
  const void* C;
  const void* dy;
  const float* D;
  const float* dt;
  const float* a;
  const int* restarts;
  const int* lengths;
  /// The states that enter the tiles: either the saved ones (a tile a chunk), or (B, tiles, H, P, N padded) in T.
  const float* states;
  const void* fine;
  const float* dfinal;
  void* dx;
  /// (B, tiles, blocks, 2, Q * N padded), dB and dC in the order of fragments.
  void* partial;
  /// (2, B, blocks of a head, H, tiles, Q): the gradient of dt_t A, and x_t . dX_t.
  float* sums;
  float* dinitial;
  /// (B, H, P)
  float* dD;
  int x_pitch, B_pitch, C_pitch, dy_pitch, dx_pitch;
  SsdSizes s;
  int D_by_channel, aligned;
};

template <typename T, int N, int Q>
struct SsdBackwardShared {
  static constexpr int wide_n = N + 8, wide_q = Q + 8, strips = Q / 16;
  alignas(16) T B[Q * wide_n];
  T C[Q * wide_n];
  T S[Q * wide_n];
  T dS[Q * wide_n];
  T x[Q * wide_q];
  T g[Q * wide_q];
  T K[Q * wide_q];
  T W[Q * wide_q];
  int restarts[Q];
  float state_product[2 * strips];
  /// By columns of 16: w_j x_j . dS B_j and x_j . dX_j.
  float inner_state[strips][Q];
  float inner[strips][Q];
  float skip[Q];
};

/// What there is once for each head of a block; it follows the structure above.
template <int Q>
struct SsdBackwardHead {
  float a[Q], dt[Q];
  /// e^{a_i} and e^{a_Q - a_j}, 0 where the state does not come or go so far.
  float enter[Q], leave[Q];
  float rows[2][Q], columns[Q / 16][Q], from_state[2][Q];
};

/// The gradients of dt_t A for head r of a block, from what lies within a tile, comes out of the state and goes into it; and x_t . dX_t. A
/// warp adds up in the order of tokens.
template <typename T, int N, int Q>
__device__ __forceinline__ void ssd_sum_decays(const SsdBackward& p, const SsdBackwardShared<T, N, Q>& m, const SsdBackwardHead<Q>& h,
                                               const SsdBlock<Q>& block, int r, int q) {
  constexpr int strips = Q / 16;
  const SsdSizes& s = p.s;
  const int lane = threadIdx.x % 32, b = blockIdx.y, tiles = s.chunks * s.per_chunk;
  constexpr int each = Q / 32;
  float later[each], earlier[each], xdX[each];
  float product = 0.0f;
  for (int w = 0; w < 2 * strips; w++) {
    if (block.head_of(w % strips) == r) product += m.state_product[w];
  }
#pragma unroll
  for (int k = 0; k < each; k++) {
    const int t = lane * each + k;
    later[k] = h.rows[0][t] + h.rows[1][t] + h.from_state[0][t] + h.from_state[1][t];
    for (int i = t / 16; i < strips; i++) later[k] -= h.columns[i][t];
    earlier[k] = xdX[k] = 0.0f;
    for (int c = 0; c < strips; c++) {
      if (block.head_of(c) != r) continue;
      earlier[k] += m.inner_state[c][t];
      xdX[k] += m.inner[c][t];
    }
  }
  float sum_later = 0.0f, sum_earlier = 0.0f;
#pragma unroll
  for (int k = 0; k < each; k++) {
    sum_later += later[k];
    sum_earlier += earlier[k];
  }
  float after = sum_later, up_to = sum_earlier;
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) {
    const float down = __shfl_down_sync(kFullMask, after, step), up = __shfl_up_sync(kFullMask, up_to, step);
    if (lane + step < 32) after += down;
    if (lane >= step) up_to += up;
  }
  after -= sum_later;
  up_to -= sum_earlier;
  const long long plane = static_cast<long long>(gridDim.y) * s.blocks_per_head * s.heads * tiles * Q;
  float* const to = p.sums + (((static_cast<long long>(b) * s.blocks_per_head + block.part) * s.heads + block.head + r) * tiles + q) * Q;
  float sums[each];
#pragma unroll
  for (int k = 0; k < each; k++) {
    sums[k] = up_to + product;
    up_to += earlier[k];
  }
#pragma unroll
  for (int k = each - 1; k >= 0; k--) {
    after += later[k];
    to[lane * each + k] = sums[k] + after;
    to[plane + lane * each + k] = xdX[k];
  }
}
