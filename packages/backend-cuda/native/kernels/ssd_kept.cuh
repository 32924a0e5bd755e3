// Layer: CUDA kernels. A token of the Mamba-2 scan beside a state of some tokens ago, where token and state are of one type of 16 bits: products
// of the state and of the kept B with C on tensor cores, so that few instructions stand beside the bytes. Everything else: ssd_deferred.cuh,
// whose parameters and formulas these are. Knows the scan's layouts.
//
// A warp has 16 channels of a row, of one head, and meets no other. A lane reads 8 elements of a line; which elements of N stand at which place
// of the unit is the same on both sides, and so does not matter. All columns of the right side are C.
#pragma once

#include "half_products.cuh"
#include "ssd_deferred.cuh"

constexpr int kKeptThreads = 128;
/// Channels of a warp.
constexpr int kKeptChannels = 16;

/// Eight elements of a line, two in a word.
struct alignas(16) Eight {
  uint32_t at[4];
};

/// Zeros where it is not there. Ordered where it stands: compilers would rather wait for one before they order the next.
__device__ __forceinline__ Eight read_eight(const void* from, bool there) {
  Eight x;
  asm volatile(
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %5, 0;\n\tmov.b32 %0, 0;\n\tmov.b32 %1, 0;\n\tmov.b32 %2, 0;\n\tmov.b32 %3, 0;\n\t"
      "@p ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "=&r"(x.at[0]), "=&r"(x.at[1]), "=&r"(x.at[2]), "=&r"(x.at[3])
      : "l"(from), "r"(static_cast<int>(there))
      : "memory");
  return x;
}

/// Lines l and l + 8 of 16 lines, times C: in [0] and [2].
template <typename T, int V>
__device__ __forceinline__ void times_C(float (&sums)[4], const Eight (&lines)[2][V], const Eight (&C)[V]) {
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int s = 0; s < 4; s += 2)
      multiply<T>(sums, HalfA{lines[0][v].at[s], lines[1][v].at[s], lines[0][v].at[s + 1], lines[1][v].at[s + 1]},
                  HalfB{C[v].at[s], C[v].at[s + 1]});
}

/// Of 16 numbers that {@link times_C} has left over a warp, that of line `lane` % 16.
__device__ __forceinline__ float of_line(const float (&sums)[4], int lane) {
  const float low = __shfl_sync(kFullMask, sums[0], lane % 8 * 4), high = __shfl_sync(kFullMask, sums[2], lane % 8 * 4);
  return lane % 16 < 8 ? low : high;
}

template <typename T, int N>
__device__ __forceinline__ void ssd_kept(const SsdDeferred& p) {
  constexpr int V = N / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, line = lane / 4, part = lane % 4, b = blockIdx.y;
  const int width = p.heads * p.head_dim, first = (blockIdx.x * (kKeptThreads / 32) + warp) * kKeptChannels;
  const bool there = first < width;
  const int head = min(first, width - 1) / p.head_dim, group = head / (p.heads / p.groups);
  T* const state = static_cast<T*>(p.state) + (static_cast<long long>(b) * width + min(first, width - kKeptChannels)) * N;
  const auto place = [&](int s) { return static_cast<long long>(b) * p.kept + s; };
  let_next_start();
  if (lane == 0 && there) prefetch_row(state, kKeptChannels * N * static_cast<int>(sizeof(T)));
  if (threadIdx.x == 1) prefetch_row(static_cast<const T*>(p.kept_B) + place(0) * p.groups * N, p.kept * p.groups * N * static_cast<int>(sizeof(T)));
  if (lane % 16 < p.kept && there) {
    const T* const of_x = static_cast<const T*>(p.kept_x) + place(lane % 16) * width + first;
    const float* const of_steps = p.kept_steps + place(lane % 16) * p.heads + head;
    prefetch(lane < 16 ? static_cast<const void*>(of_x) : of_steps);
  }
  wait_for_previous();
  if (!there) return;

  Eight h[2][V], C[V], B[2][V];
  const T* const own_B = static_cast<const T*>(p.B) + static_cast<long long>(b) * p.B_pitch + group * N;
  const T* const from_C = static_cast<const T*>(p.C) + static_cast<long long>(b) * p.C_pitch + group * N + 8 * part;
  const int held = *p.count % p.kept, tokens = held + 1;
  const auto B_of = [&](int s) { return s < held ? static_cast<const T*>(p.kept_B) + (place(s) * p.groups + group) * N : own_B; };
#pragma unroll
  for (int v = 0; v < V; v++) {
    C[v] = read_eight(from_C + 32 * v, true);
#pragma unroll
    for (int i = 0; i < 2; i++) h[i][v] = read_eight(state + (line + 8 * i) * N + 32 * v + 8 * part, true);
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int s = line + 8 * i;
    const T* const from = B_of(min(s, held)) + 8 * part;
#pragma unroll
    for (int v = 0; v < V; v++) B[i][v] = read_eight(from + 32 * v, s < tokens);
  }
  // Of the channel that the lane finishes: x of this token, and of eight tokens.
  const int channel = first + lane % 16, half = lane / 16;
  const T own = static_cast<const T*>(p.x)[static_cast<long long>(b) * p.x_pitch + channel];
  const T* const kept_x = static_cast<const T*>(p.kept_x) + channel;
  float x[kMostKept / 2];
#pragma unroll
  for (int i = 0; i < kMostKept / 2; i++) {
    const int s = kMostKept / 2 * half + i;
    x[i] = s < held ? to_float(kept_x[place(s) * width]) : s == held ? to_float(own) : 0.0f;
  }
  float step = 0.0f;
  if (lane < held) {
    step = p.kept_steps[place(lane) * p.heads + head];
  } else if (lane == held) {
    step = to_float(static_cast<const T*>(p.dt)[static_cast<long long>(b) * p.dt_pitch + head]) + (p.bias ? p.bias[head] : 0.0f);
    if (p.softplus) step = softplus(step);
    step = fminf(fmaxf(step, p.low), p.high);
    if (first % p.head_dim == 0) p.kept_steps[place(held) * p.heads + head] = step;
  }
  // Lane s: of token s and those after it.
  float sum = step * (p.A[head] * kLog2E);
#pragma unroll
  for (int i = 1; i < kMostKept; i <<= 1) {
    const float after = __shfl_down_sync(kFullMask, sum, i);
    if (lane + i < 32) sum += after;
  }
  const float weight = exp2_fast(__shfl_down_sync(kFullMask, sum, 1)) * step, decay = exp2_fast(__shfl_sync(kFullMask, sum, 0));

  float of_B[4] = {}, of_h[4] = {};
  times_C<T>(of_B, B, C);
  times_C<T>(of_h, h, C);
  const float factor = weight * of_line(of_B, lane);
  float y = 0.0f;
#pragma unroll
  for (int i = 0; i < kMostKept / 2; i++) y = fmaf(__shfl_sync(kFullMask, factor, kMostKept / 2 * half + i), x[i], y);
  y += __shfl_xor_sync(kFullMask, y, 16);
  y = fmaf(decay, of_line(of_h, lane), y);
  y = fmaf(p.D ? p.D[p.D_by_channel ? channel : head] : 0.0f, to_float(own), y);
  if (lane < 16) {
    if (p.z) y *= silu(to_float(static_cast<const T*>(p.z)[static_cast<long long>(b) * p.z_pitch + channel]));
    static_cast<T*>(p.y)[static_cast<long long>(b) * p.y_pitch + channel] = from_float<T>(y);
    static_cast<T*>(p.kept_x)[place(held) * width + channel] = own;
  }
  // B is a group's: one of its warps keeps it.
  if (first == group * (p.heads / p.groups) * p.head_dim) {
    for (int n = 8 * lane; n < N; n += 256)
      *reinterpret_cast<Eight*>(static_cast<T*>(p.kept_B) + (place(held) * p.groups + group) * N + n) = read_eight(own_B + n, true);
  }
  if (tokens < p.kept) return;

  // All tokens go into the state: lines `line` and `line` + 8, some elements at a time.
  constexpr int W = V < 2 ? 1 : 2;
#pragma unroll
  for (int from = 0; from < V; from += W) {
    float to[2][W][8];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int w = 0; w < W; w++) {
        const T* const at = reinterpret_cast<const T*>(h[i][from + w].at);
#pragma unroll
        for (int e = 0; e < 8; e++) to[i][w][e] = decay * to_float(at[e]);
      }
#pragma unroll 1
    for (int s = 0; s < tokens; s++) {
      const float w_s = __shfl_sync(kFullMask, weight, s);
      const T* const of_x = s < held ? static_cast<const T*>(p.kept_x) + place(s) * width : static_cast<const T*>(p.x) + static_cast<long long>(b) * p.x_pitch;
      const float low = w_s * to_float(of_x[first + line]), high = w_s * to_float(of_x[first + line + 8]);
      const T* const of_B = B_of(s) + 32 * from + 8 * part;
#pragma unroll
      for (int w = 0; w < W; w++) {
        float Bs[8];
        load<8>(of_B + 32 * w, Bs);
#pragma unroll
        for (int e = 0; e < 8; e++) {
          to[0][w][e] = fmaf(low, Bs[e], to[0][w][e]);
          to[1][w][e] = fmaf(high, Bs[e], to[1][w][e]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int w = 0; w < W; w++) store<8>(state + (line + 8 * i) * N + 32 * (from + w) + 8 * part, to[i][w]);
  }
}
