// Layer: CUDA kernels. What the kernels of the Mamba-2 scan share: how a row of tokens is cut into tiles, and where a block's
// heads, columns and states lie. Knows the scan's layouts; computes nothing.
//
// A saved chunk has `chunk_size` tokens and is worked through in `per_chunk` tiles of up to Q tokens; tile q is part
// q % per_chunk of chunk q / per_chunk. A block has Q columns of (H, P): part of a head, a head, or several heads of a group.
#pragma once

#include "ssd_tile.cuh"

/// Whether a kernel with tiles of Q and so much shared memory is ever launched on the architecture at hand (ssdPlan.ts): the others
/// need not be compiled for it. Code for sm_80 is also what other devices compile for themselves, and so has all of them.
template <typename T, int Q>
__host__ __device__ constexpr bool ssd_is_launched(size_t bytes) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 900 || defined(DIFFMAMBA_ALL_TILES)
  return true;
#elif __CUDA_ARCH__ < 1200
  return sizeof(T) == 4 || Q == 64;
#else
  return bytes <= 99 * 1024;
#endif
}

struct SsdSizes {
  int length, heads, head_dim, d_state, groups;
  int chunk_size, chunks, per_chunk;
  /// Heads of a block, and blocks of a head: one of them is 1.
  int heads_per_block, blocks_per_head;
};

/// Tokens of a tile: those that exist, and those of them that are no padding.
template <int Q>
struct SsdTokens {
  int chunk, part, first, nominal, count;
  __device__ SsdTokens(const SsdSizes& s, int chunk, int part, int end) : chunk(chunk), part(part) {
    first = chunk * s.chunk_size + part * Q;
    nominal = max(min(Q, min((chunk + 1) * s.chunk_size, s.length) - first), 0);
    count = max(min(nominal, end - first), 0);
  }
  __device__ SsdTokens next(const SsdSizes& s, int end) const {
    const bool same = part + 1 < s.per_chunk;
    return SsdTokens(s, same ? chunk : chunk + 1, same ? part + 1 : 0, end);
  }
  __device__ SsdTokens previous(const SsdSizes& s, int end) const {
    return SsdTokens(s, part > 0 ? chunk : chunk - 1, part > 0 ? part - 1 : s.per_chunk - 1, end);
  }
};

/// Tokens of row b that are no padding.
__device__ __forceinline__ int ssd_end(const SsdSizes& s, const int* lengths, int b) {
  return lengths ? min(max(lengths[b], 0), s.length) : s.length;
}

/// The heads and columns of a block.
template <int Q>
struct SsdBlock {
  int head, part, columns, first, group;
  bool several;
  /// For each 16 of the block's columns the head that they belong to, counted in the block: four bits.
  unsigned heads;
  __device__ SsdBlock(const SsdSizes& s, int block) {
    head = block / s.blocks_per_head * s.heads_per_block;
    part = block % s.blocks_per_head;
    several = s.heads_per_block > 1;
    columns = several ? s.heads_per_block * s.head_dim : min(Q, s.head_dim - part * Q);
    first = head * s.head_dim + part * Q;
    group = head / (s.heads / s.groups);
    heads = 0;
    for (int i = 0; several && i < Q / 16; i++) heads |= static_cast<unsigned>(i * 16 / s.head_dim) << (4 * i);
  }
  /// The head, counted in the block, of the block's columns 16 * i to 16 * i + 15.
  __device__ __forceinline__ int head_of(int i) const { return heads >> (4 * i) & 15; }
  /// D for each of the block's columns, into shared memory; zeros without.
  __device__ void load_skip(float* to, const SsdSizes& s, const float* D, bool by_channel) const {
    for (int c = threadIdx.x; c < Q; c += blockDim.x) {
      to[c] = D && c < columns ? D[by_channel ? first + c : (first + c) / s.head_dim] : 0.0f;
    }
  }
};

/// One warp's part of a state (columns of the block x N) in f32: rows strip * 16 + .., columns n0 + .., as sums lie.
template <int N>
struct SsdState {
  float at[N / 16][4];

  template <typename F>
  __device__ __forceinline__ void each(int row0, int n0, F&& f) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < N / 16; t++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        f(row0 + lane / 4 + half * 8, n0 + t * 8 + lane % 4 * 2, at[t][2 * half], at[t][2 * half + 1]);
      }
    }
  }
  /// From rows of `d_state`; zeros where there are none.
  __device__ void load(const float* from, int rows, int d_state, int row0, int n0) {
    each(row0, n0, [&](int row, int n, float& x, float& y) {
      x = from && row < rows && n < d_state ? from[static_cast<long long>(row) * d_state + n] : 0.0f;
      y = from && row < rows && n + 1 < d_state ? from[static_cast<long long>(row) * d_state + n + 1] : 0.0f;
    });
  }
  __device__ void store(float* to, int rows, int d_state, int row0, int n0) {
    each(row0, n0, [&](int row, int n, float& x, float& y) {
      if (row >= rows || n >= d_state) return;
      float* at = to + static_cast<long long>(row) * d_state + n;
      if (d_state % 2 == 0) {
        *reinterpret_cast<float2*>(at) = make_float2(x, y);
      } else {
        at[0] = x;
        if (n + 1 < d_state) at[1] = y;
      }
    });
  }
  template <typename T>
  __device__ void to_tile(T* tile, int row0, int n0) {
    each(row0, n0, [&](int row, int n, float& x, float& y) { store_pair<T>(tile + row * (N + 8) + n, x, y); });
  }
};
