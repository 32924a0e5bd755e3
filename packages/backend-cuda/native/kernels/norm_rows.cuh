// Layer: CUDA kernels. What the norms share: teams of threads that take a row together, vectors of it that stay in registers, and sums
// over the rows of a block. Knows no formula.
#pragma once

#include "common.cuh"

/// Threads of a block of all of these kernels; teams of them share it.
constexpr int kThreads = 256;
/// Vectors of a row that a thread keeps in registers; what goes beyond them is read again. Where little else is kept, twice as many.
constexpr int kHeld = 2;

/// Calls body(item, slot) for this thread's vectors of a row: slot is a constant, or -1 where there is no register for it.
template <int HELD = kHeld, typename Body>
__device__ __forceinline__ void each_vector(int items, int member, int team, Body body) {
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const int item = member + i * team;
    if (item < items) body(item, i);
  }
  for (int item = member + HELD * team; item < items; item += team) body(item, -1);
}

/// The sum over a team of one or several whole warps, for all of its threads. `scratch` holds a float for each warp of the block.
/// `together`: all teams of the block come here as often as each other.
template <bool together = false>
__device__ __forceinline__ float team_sum(float x, int team, float* scratch) {
  x = warp_sum(x);
  if (team == 32) return x;
  const int own = threadIdx.x / team, first = own * (team / 32);
  // A barrier for each team, where they go on by themselves.
  const auto wait = [&] {
    if (together) __syncthreads();
    else asm volatile("bar.sync %0, %1;" ::"r"(1 + own), "r"(team) : "memory");
  };
  wait();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  wait();
  float sum = 0.0f;
  for (int w = 0; w < team / 32; w++) sum += scratch[first + w];
  return sum;
}

/// What a team sums of a row's columns over its rows: in registers as far as they go, then in shared memory.
template <int V>
struct ColumnSums {
  float held[kHeld][V];
  float* const shared;

  /// `shared` holds `size` floats.
  __device__ __forceinline__ ColumnSums(float* shared_, int items, int member, int team) : shared(shared_) {
#pragma unroll
    for (int i = 0; i < kHeld; i++)
#pragma unroll
      for (int v = 0; v < V; v++) held[i][v] = 0.0f;
    for (int item = member + kHeld * team; item < items; item += team)
      for (int v = 0; v < V; v++) shared[item * V + v] = 0.0f;
  }
  __device__ __forceinline__ void add(int item, int slot, int v, float x) {
    if (slot >= 0) held[slot][v] += x;
    else shared[item * V + v] += x;
  }
  /// To shared memory altogether.
  __device__ __forceinline__ void settle(int items, int member, int team) {
    each_vector(items, member, team, [&](int item, int slot) {
      if (slot < 0) return;
#pragma unroll
      for (int v = 0; v < V; v++) shared[item * V + v] = held[slot][v];
    });
  }
};

/// Adds up what the teams of a block have summed of a row's columns, into parts (blocks, columns) from `from` on.
__device__ __forceinline__ void store_parts(const float* sums, float* parts, int size, int columns, int from, int teams) {
  __syncwarp();
  __syncthreads();
  float* const to = parts + static_cast<long long>(blockIdx.x) * columns + from;
  for (int c = threadIdx.x; c < size; c += blockDim.x) {
    float sum = 0.0f;
    for (int t = 0; t < teams; t++) sum += sums[t * size + c];
    to[c] = sum;
  }
}
