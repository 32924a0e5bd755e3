// Layer: CUDA kernels. A token of the Mamba-2 scan beside a state of some tokens ago: the state is read once and not written, and y is made
// of it and of the few tokens that are kept since (the dual form of the scan). Every K-th token takes all of them into the state.
// Knows the scan's layouts.
//
// A block has up to 64 channels of one row: a head, a part of one, or several heads of a group. Eight lanes have two of the channels, so
// that a vector of C serves two rows of the state. The state is on its way, 16 bytes a lane and vector, while warps make
// (C . B_s) e^(a_s) step_s of the tokens, a token a warp.
#pragma once

#include "ssd_step.cuh"

/// Tokens that can be kept: KEPT of src/kernels/ssdDeferred.ts.
constexpr int kMostKept = 16;
/// Channels that eight lanes have, and heads that a block has at most.
constexpr int kLaneChannels = 2;
constexpr int kMostHeads = 8;
constexpr int kDeferredThreads = 256;

struct SsdDeferred {
  const void* x;
  const void* dt;
  const float* A;
  const void* B;
  const void* C;
  const void* z;
  const float* D;
  const float* bias;
  /// (B, H, P, N)
  void* state;
  /// (B, K, H, P), (B, K, G, N), (B, K, H), and how many tokens there were, modulo K.
  void* kept_x;
  void* kept_B;
  float* kept_steps;
  const int* count;
  void* y;
  int x_pitch, dt_pitch, B_pitch, C_pitch, z_pitch, y_pitch;
  int heads, head_dim, groups, kept;
  int D_by_channel, softplus;
  float low, high;
  /// A block asks for the state of the block so many further on, that it is on its way when that one begins. The size is the kernel's own.
  int ahead, d_state;
  /// Of ssd_kept: how many blocks have time to read states, kept tokens and parameters before the kernel before has ended; 0 where none may.
  int early, unused;
};

/// E elements of a row, in accesses of up to 16 bytes.
template <int E, typename T>
__device__ __forceinline__ void load_row(const T* from, float (&to)[E]) {
  SsdOperands<T>::template load_row<E>(from, to);
}

/// This token's step, from dt with its bias.
__device__ __forceinline__ float step_of(const SsdDeferred& p, float dt) { return fminf(fmaxf(p.softplus ? softplus(dt) : dt, p.low), p.high); }

/// What a warp, whose lane s has token s, knows of a head.
struct Decays {
  /// Of the lane's token: e^(a_s) step_s, where a_s are the logarithms of the decays after it. And the decay of all tokens.
  float weight, all;
};
/// `step`: of the lane's token; 0 where there is none. @param A of the head
__device__ __forceinline__ Decays decays_of(float step, float A) {
  const int lane = threadIdx.x % 32;
  // Of this token and those after it.
  float sum = step * (A * kLog2E);
#pragma unroll
  for (int i = 1; i < kMostKept; i <<= 1) {
    const float after = __shfl_down_sync(kFullMask, sum, i);
    if (lane + i < 32) sum += after;
  }
  const float after = __shfl_down_sync(kFullMask, sum, 1);
  return {exp2_fast(after) * step, exp2_fast(__shfl_sync(kFullMask, sum, 0))};
}

/// `settle`: no token comes; those that are kept go into the state.
template <typename T, typename H, int N, bool settles>
__device__ __forceinline__ void ssd_deferred(const SsdDeferred& p) {
  constexpr int R = kLaneChannels, W = kVector<H>, vectors = N / W / 8;
  __shared__ float products[kMostKept], weights[kMostHeads][kMostKept], decays[kMostHeads];
  const int part = threadIdx.x % 8, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int channels = blockDim.x / 8 * R, width = p.heads * p.head_dim, b = blockIdx.y;
  const int first = blockIdx.x * channels, head0 = first / p.head_dim, group = head0 / (p.heads / p.groups);
  const auto channel_of = [&](int r) { return first + r * (channels / R) + static_cast<int>(threadIdx.x) / 8; };
  const auto row_of = [&](int channel) { return static_cast<H*>(p.state) + (static_cast<long long>(b) * width + channel) * N; };
  const auto place = [&](int s) { return static_cast<long long>(b) * p.kept + s; };

  let_next_start();
  if (lane == 0) {
    const long long block = static_cast<long long>(b) * gridDim.x + blockIdx.x, blocks = static_cast<long long>(gridDim.x) * gridDim.y;
    const auto ask = [&](long long block) {
#pragma unroll
      for (int r = 0; r < R; r++) {
        const H* const rows = static_cast<const H*>(p.state) + (block * channels + channel_of(r) - first) * N;
        prefetch_row(rows, 4 * N * static_cast<int>(sizeof(H)));
      }
    };
    if (block < p.ahead) ask(block);
    if (block + p.ahead < blocks) ask(block + p.ahead);
  }
  wait_for_previous();

  // Loaded here, and looked at behind the barrier.
  Vector<H, W> state[R][vectors];
#pragma unroll
  for (int r = 0; r < R; r++) {
    const H* const row = row_of(channel_of(r));
#pragma unroll
    for (int k = 0; k < vectors; k++) state[r][k] = *reinterpret_cast<const Vector<H, W>*>(row + W * (8 * k + part));
  }
  const int held = *p.count % p.kept, tokens = settles ? held : held + 1;
  if (settles && held == 0) return;

  const T* const own_B = settles ? nullptr : static_cast<const T*>(p.B) + static_cast<long long>(b) * p.B_pitch + group * N;
  const T* const C = settles ? nullptr : static_cast<const T*>(p.C) + static_cast<long long>(b) * p.C_pitch + group * N;
  const auto B_of = [&](int s) { return s < held ? static_cast<const T*>(p.kept_B) + (place(s) * p.groups + group) * N : own_B; };
  // A lane's x of every eighth token, from token `part` on.
  float own[R], x[R][kMostKept / 8];
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int channel = channel_of(r);
    own[r] = settles ? 0.0f : to_float(static_cast<const T*>(p.x)[static_cast<long long>(b) * p.x_pitch + channel]);
#pragma unroll
    for (int i = 0; i < kMostKept / 8; i++) {
      const int s = part + 8 * i;
      x[r][i] = s < held ? to_float(static_cast<const T*>(p.kept_x)[place(s) * width + channel]) : s < tokens ? own[r] : 0.0f;
    }
  }

  // A head of the block to a warp: lane s has token s.
  if (warp < max(channels / p.head_dim, 1)) {
    const int head = head0 + warp;
    float step = 0.0f;
    if (lane < held) {
      step = p.kept_steps[place(lane) * p.heads + head];
    } else if (lane < tokens) {
      step = step_of(p, to_float(static_cast<const T*>(p.dt)[static_cast<long long>(b) * p.dt_pitch + head]) + (p.bias ? p.bias[head] : 0.0f));
      if (first % p.head_dim == 0) p.kept_steps[place(held) * p.heads + head] = step;
    }
    const Decays of_head = decays_of(step, p.A[head]);
    if (lane < tokens) weights[warp][lane] = of_head.weight;
    if (lane == 0) decays[warp] = of_head.all;
  }
  if (!settles) {
    constexpr int E = N / 32;
    float of_C[E];
    load_row<E>(C + E * lane, of_C);
    for (int s = warp; s < tokens; s += warps) {
      float of_B[E], sum = 0.0f;
      load_row<E>(B_of(s) + E * lane, of_B);
#pragma unroll
      for (int e = 0; e < E; e++) sum = fmaf(of_C[e], of_B[e], sum);
      sum = warp_sum(sum);
      if (lane == 0) products[s] = sum;
    }
    // B is a group's: one of its blocks keeps it.
    if (first == group * (p.heads / p.groups) * p.head_dim) {
      T* const to = static_cast<T*>(p.kept_B) + (place(held) * p.groups + group) * N;
      for (int n = threadIdx.x; n < N; n += blockDim.x) to[n] = own_B[n];
    }
  }
  __syncthreads();

  if (!settles) {
    float sums[R] = {};
#pragma unroll
    for (int k = 0; k < vectors; k++) {
      float of_C[W];
      load_row<W>(C + W * (8 * k + part), of_C);
#pragma unroll
      for (int r = 0; r < R; r++) {
#pragma unroll
        for (int e = 0; e < W; e++) sums[r] = fmaf(to_float(state[r][k].at[e]), of_C[e], sums[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      const int channel = channel_of(r), head = channel / p.head_dim;
      float sum = decays[head - head0] * sums[r];
#pragma unroll
      for (int i = 0; i < kMostKept / 8; i++) {
        const int s = part + 8 * i;
        if (s < tokens) sum = fmaf(products[s] * weights[head - head0][s], x[r][i], sum);
      }
#pragma unroll
      for (int i = 1; i < 8; i <<= 1) sum += __shfl_xor_sync(kFullMask, sum, i);
      if (part > 0) continue;
      sum = fmaf(p.D ? p.D[p.D_by_channel ? channel : head] : 0.0f, own[r], sum);
      if (p.z) sum *= silu(to_float(static_cast<const T*>(p.z)[static_cast<long long>(b) * p.z_pitch + channel]));
      static_cast<T*>(p.y)[static_cast<long long>(b) * p.y_pitch + channel] = from_float<T>(sum);
      static_cast<T*>(p.kept_x)[place(held) * width + channel] = from_float<T>(own[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < R && (settles || tokens == p.kept); r++) {
    const int channel = channel_of(r), head = channel / p.head_dim - head0;
    float h[vectors][W];
#pragma unroll
    for (int k = 0; k < vectors; k++) {
#pragma unroll
      for (int e = 0; e < W; e++) h[k][e] = decays[head] * to_float(state[r][k].at[e]);
    }
#pragma unroll 1
    for (int s = 0; s < tokens; s++) {
      const float scaled = weights[head][s] * __shfl_sync(kFullMask, s < 8 ? x[r][0] : x[r][1], (lane & 24) | (s & 7));
      const T* const B = B_of(s);
#pragma unroll
      for (int k = 0; k < vectors; k++) {
        float of_B[W];
        load_row<W>(B + W * (8 * k + part), of_B);
#pragma unroll
        for (int e = 0; e < W; e++) h[k][e] = fmaf(scaled, of_B[e], h[k][e]);
      }
    }
#pragma unroll
    for (int k = 0; k < vectors; k++) store<W>(row_of(channel) + W * (8 * k + part), h[k]);
  }
}
