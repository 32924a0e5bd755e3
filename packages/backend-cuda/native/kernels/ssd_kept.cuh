// Layer: CUDA kernels. A token of the Mamba-2 scan beside a state of some tokens ago, where token and state are of one type of 16 bits: products
// of the state and of the kept B with C on tensor cores, so that few instructions stand beside the bytes. Everything else: ssd_deferred.cuh,
// whose parameters and formulas these are. Knows the scan's layouts.
//
// A block has kKeptChannels channels of a row, of one group; a warp has kWarpChannels of them, of one head. The block's states go to shared memory
// in one copy that is enqueued first of all, where it is known that no one writes them (`early`) while the kernel before still computes. All
// columns of the right side are C, but columns that differ by one have its elements in an order that differs: so do lines of states, since
// lines that are read at once would else lie in the same banks.
#pragma once

#include "bulk_copy.cuh"
#include "gates.cuh"
#include "half_products.cuh"
#include "ssd_deferred.cuh"

constexpr int kKeptThreads = 128;
constexpr int kWarpChannels = 32;
constexpr int kKeptChannels = kKeptThreads / 32 * kWarpChannels;

/// The first half of a gated norm of y, norm(y silu(z)), that a product of rows_norm.cuh finishes. H P is then a multiple of a block's channels.
struct KeptNorm {
  const void* z;
  const void* weight;
  /// (B, H P): weight y silu(z), and (B, blocks).
  void* scaled;
  float* squares;
  int z_pitch, unused;
};

/// Eight elements, as tensor cores take them: two in a word.
struct alignas(16) Eight {
  uint32_t at[4];
};

/// The vector of N elements that a lane has as its u-th, of a line and of C alike. In one phase of reading all are in different banks.
__device__ __forceinline__ int vector_at(int u) {
  const int lane = threadIdx.x % 32;
  return 4 * (u ^ (lane / 4 & 1)) + lane % 4;
}

/// 16 lines times C, where `low` and `high` are vectors of lines lane / 4 and lane / 4 + 8.
template <typename T>
__device__ __forceinline__ void multiply_lines(float (&sums)[4], const Eight& low, const Eight& high, const Eight& C) {
#pragma unroll
  for (int s = 0; s < 4; s += 2)
    multiply<T>(sums, HalfA{low.at[s], high.at[s], low.at[s + 1], high.at[s + 1]}, HalfB{C.at[s], C.at[s + 1]});
}

/// Of 16 such sums that of line lane / 4, or of the one 8 further on. Lines of one parity have theirs in columns of it, and lanes two columns.
__device__ __forceinline__ float of_line(const float (&sums)[4], bool further) {
  const bool odd = threadIdx.x / 4 & 1;
  return further ? (odd ? sums[3] : sums[2]) : (odd ? sums[1] : sums[0]);
}

/// Sums of eight numbers over the lanes of one remainder by 4: of the number lane / 4.
__device__ __forceinline__ float sum_of_eight(float (&x)[8]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 4; half > 0; half /= 2) {
    const bool upper = lane & 4 * half;
#pragma unroll
    for (int i = 0; i < half; i++) {
      const float kept = upper ? x[i + half] : x[i], sent = upper ? x[i] : x[i + half];
      x[i] = kept + __shfl_xor_sync(kFullMask, sent, 4 * half);
    }
  }
  return x[0];
}

/// All tokens go into a warp's states, from `lines` to `state`: decay h + x' B, where x' = weight x is the sum of three numbers of 16 bits.
/// `x_of(s, channel)`: of token s, as a float. Lane s has token s's weight. The last token's B lies in place kMostKept.
template <typename T, int N, typename X>
__device__ __forceinline__ void fold(T* state, const T* lines, T* of_B, int kept, float weight, float decay, X x_of) {
  constexpr int TILES = kWarpChannels / 16;
  const int lane = threadIdx.x % 32, line = lane / 4, pair = lane % 4;
  HalfA parts[TILES][3];
#pragma unroll
  for (int tile = 0; tile < TILES; tile++)
#pragma unroll
    for (int q = 0; q < 4; q++) {
      float v[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int s = pair * 2 + q / 2 * 8 + e;
        v[e] = __shfl_sync(kFullMask, weight, s) * x_of(s, 16 * tile + line + q % 2 * 8);
      }
#pragma unroll
      for (int i = 0; i < 3; i++) {
        parts[tile][i].at[q] = pack<T>(v[0], v[1]);
        v[0] -= round_to<T>(v[0]);
        v[1] -= round_to<T>(v[1]);
      }
    }
  // Column n of the t-th product is element 2 t + n % 2 of vector n / 2: a lane's two columns of four products are the words of one vector.
#pragma unroll 1
  for (int u = 0; u < N / 32; u++) {
    HalfB B[4];
#pragma unroll
    for (int t = 0; t < 4; t++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        uint32_t word = 0;
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const int s = 2 * pair + 8 * i + e;
          const T* const vector = swizzled<T, N>(of_B, s + 1 < kept ? s : kMostKept, 4 * u + line / 2);
          word |= static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(vector + 2 * t + line % 2)) << 16 * e;
        }
        B[t].at[i] = word;
      }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      Eight h[2];
#pragma unroll
      for (int half = 0; half < 2; half++) h[half] = *reinterpret_cast<const Eight*>(lines + (16 * tile + 8 * half + line) * N + (4 * u + pair) * 8);
#pragma unroll
      for (int t = 0; t < 4; t++) {
        float to[4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float2 h0 = unpack<T>(h[half].at[t]);
          to[2 * half] = decay * h0.x;
          to[2 * half + 1] = decay * h0.y;
        }
#pragma unroll
        for (int i = 2; i >= 0; i--) multiply<T>(to, parts[tile][i], B[t]);
#pragma unroll
        for (int half = 0; half < 2; half++) h[half].at[t] = pack<T>(to[2 * half], to[2 * half + 1]);
      }
#pragma unroll
      for (int half = 0; half < 2; half++) *reinterpret_cast<Eight*>(state + (16 * tile + 8 * half + line) * N + (4 * u + pair) * 8) = h[half];
    }
  }
}

template <typename T, int N>
__device__ __forceinline__ void ssd_kept(const SsdDeferred& p, const KeptNorm* norm = nullptr) {
  constexpr int VECTORS = N / 8;
  __shared__ __align__(128) T states[kKeptChannels * N];
  __shared__ __align__(128) T of_B[(kMostKept + 1) * N];
  __shared__ __align__(16) T of_C[N];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, b = blockIdx.y;
  const int width = p.heads * p.head_dim, block = blockIdx.x * kKeptChannels, first = block + warp * kWarpChannels;
  const int head = first / p.head_dim, group = head / (p.heads / p.groups);
  // A lane has a channel, and of the kept x two tokens of eight channels.
  const int line = lane / 4, eight = first + lane % 4 * 8, channel = eight + line;
  T* const state = static_cast<T*>(p.state) + (static_cast<long long>(b) * width + first) * N;
  T* const own_state = states + warp * kWarpChannels * N;
  const auto place = [&](int s) { return static_cast<long long>(b) * p.kept + s; };
  const bool soon = static_cast<int>(b * gridDim.x + blockIdx.x) < p.early;
  let_next_start();
  if (!p.early) {
    if (lane == 0) prefetch_row(state, kWarpChannels * N * static_cast<int>(sizeof(T)));
    wait_for_previous();
  }
  __shared__ BulkCopy copy;
  const T* const of_block = static_cast<const T*>(p.state) + (static_cast<long long>(b) * width + block) * N;
  copy.start(states, of_block, kKeptChannels * N * static_cast<int>(sizeof(T)));
  // All places are read, whatever they hold, and also where another block writes this token's: how many of them count is known later. None
  // goes by way of registers: what waits for the kernel before waits for such first.
#pragma unroll
  for (int i = 0; i < kMostKept * VECTORS / kKeptThreads; i++) {
    const int at = kKeptThreads * i + thread, s = at / VECTORS, vector = at % VECTORS;
    const T* const from = static_cast<const T*>(p.kept_B) + (place(min(s, p.kept - 1)) * p.groups + group) * N + vector * 8;
    copy_16(swizzled<T, N>(of_B, s, vector), from, 16);
  }
  close_copies();
  if (!soon && thread < p.kept) {
    prefetch_row(static_cast<const T*>(p.kept_x) + place(thread) * width + block, kKeptChannels * static_cast<int>(sizeof(T)));
  }
  // Where the token will be: whatever can be known before it is there.
  const bool has_line = thread / VECTORS < 2;
  const T* const line_at = (thread < VECTORS ? static_cast<const T*>(p.B) + static_cast<long long>(b) * p.B_pitch
                                             : static_cast<const T*>(p.C) + static_cast<long long>(b) * p.C_pitch) +
                           group * N + thread % VECTORS * 8;
  const T* const x_at = static_cast<const T*>(p.x) + static_cast<long long>(b) * p.x_pitch + channel;
  const T* const z_at = norm ? static_cast<const T*>(norm->z) + static_cast<long long>(b) * norm->z_pitch + channel : nullptr;
  const T* const step_at = static_cast<const T*>(p.dt) + static_cast<long long>(b) * p.dt_pitch + head;
  // A place is so much further than the one before. B is a group's: one of its blocks keeps it.
  T* const kept_x_at = static_cast<T*>(p.kept_x) + place(0) * width + channel;
  float* const kept_step_at = first % p.head_dim == 0 ? p.kept_steps + place(0) * p.heads + head : nullptr;
  const bool keeps_B = block == group * (p.heads / p.groups) * p.head_dim && thread < VECTORS;
  T* const kept_B_at = static_cast<T*>(p.kept_B) + (place(0) * p.groups + group) * N + thread % VECTORS * 8;
  T* const y_at = static_cast<T*>(p.y) + static_cast<long long>(b) * p.y_pitch + channel;
  // In blocks that begin late what waits for the kernel before would first wait for these.
  Vector<T, 8> x[kMostKept / 8];
  float kept_step, A, D, bias;
  const auto read_kept = [&] {
#pragma unroll
    for (int i = 0; i < kMostKept / 8; i++)
      x[i] = *reinterpret_cast<const Vector<T, 8>*>(static_cast<const T*>(p.kept_x) + place(min(line + 8 * i, p.kept - 1)) * width + eight);
    kept_step = p.kept_steps[place(min(lane, p.kept - 1)) * p.heads + head];
    A = p.A[head];
    D = p.D ? p.D[p.D_by_channel ? channel : head] : 0.0f;
    bias = p.bias ? p.bias[head] : 0.0f;
  };
  if (soon) read_kept();
  if (p.early) {
    if (norm && lane == 0) prefetch(static_cast<const T*>(norm->weight) + channel);
    wait_for_previous();
  }
  // What the token brings.
  const int counted = *p.count;
  Vector<T, 8> own_line;
  if (has_line) own_line = *reinterpret_cast<const Vector<T, 8>*>(line_at);
  const T own = *x_at;
  const float gate = norm ? to_float(*z_at) : 0.0f;
  const float norm_weight = norm ? to_float(static_cast<const T*>(norm->weight)[channel]) : 0.0f;
  const T own_step = *step_at;
  if (!soon) read_kept();
  float step = to_float(own_step) + bias;
  // Generation keeps as many as there can be: then this is no division.
  const int held = p.kept == kMostKept ? counted % kMostKept : counted % p.kept, tokens = held + 1;
  if (has_line) {
    T* const to = thread < VECTORS ? swizzled<T, N>(of_B, kMostKept, thread) : of_C + 8 * (thread - VECTORS);
    *reinterpret_cast<Vector<T, 8>*>(to) = own_line;
  }
  // What lies in places that do not count yet is of no consequence.
  const auto line_of = [&](int s) { return s == held ? kMostKept : s; };
  step = step_of(p, step);
  if (lane == held && kept_step_at != nullptr) kept_step_at[held * p.heads] = step;
  step = lane < held ? kept_step : lane == held ? step : 0.0f;
  const auto [weight, decay] = decays_of(step, A);
  wait_copies<0>();
  __syncthreads();

  Eight C[N / 32];
  float sums[2][4] = {};
#pragma unroll
  for (int u = 0; u < N / 32; u++) {
    C[u] = *reinterpret_cast<const Eight*>(of_C + 8 * vector_at(u));
    const auto B_of = [&](int s) { return *reinterpret_cast<const Eight*>(swizzled<T, N>(of_B, line_of(s), vector_at(u))); };
    multiply_lines<T>(sums[u % 2], B_of(lane / 4), B_of(lane / 4 + 8), C[u]);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) sums[0][i] += sums[1][i];
  float ys[8] = {};
#pragma unroll
  for (int i = 0; i < kMostKept / 8; i++) {
    const int s = line + 8 * i;
    const float factor = __shfl_sync(kFullMask, weight, s) * of_line(sums[0], i > 0);
    // Places that do not count hold anything.
    if (s < held) {
#pragma unroll
      for (int c = 0; c < 8; c++) ys[c] = fmaf(factor, to_float(x[i].at[c]), ys[c]);
    }
  }
  const float last = __shfl_sync(kFullMask, weight, held) * __shfl_sync(kFullMask, of_line(sums[0], held >= 8), held % 8 * 4);
  float y = fmaf(last + D, to_float(own), sum_of_eight(ys));
  kept_x_at[held * width] = own;
  if (keeps_B) *reinterpret_cast<Vector<T, 8>*>(kept_B_at + held * p.groups * N) = own_line;

  copy.wait();
  float old[2][4] = {};
#pragma unroll
  for (int u = 0; u < N / 32; u++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const T* const from = own_state + (16 * i + lane / 4) * N + 8 * vector_at(u);
      multiply_lines<T>(old[i], *reinterpret_cast<const Eight*>(from), *reinterpret_cast<const Eight*>(from + 8 * N), C[u]);
    }
  const bool further = lane & 1;
  y = fmaf(decay, lane & 2 ? of_line(old[1], further) : of_line(old[0], further), y);
  if (p.z) y *= silu(to_float(static_cast<const T*>(p.z)[static_cast<long long>(b) * p.z_pitch + channel]));
  const T rounded = from_float<T>(y);
  *y_at = rounded;
  if (norm) {
    __shared__ float squares[kKeptThreads / 32];
    const float gated = to_float(rounded) * quick_silu(gate);
    static_cast<T*>(norm->scaled)[static_cast<long long>(b) * width + channel] = from_float<T>(gated * norm_weight);
    const float square = warp_sum(gated * gated);
    if (lane == 0) squares[warp] = square;
    __syncthreads();
    float all = 0.0f;
#pragma unroll
    for (int w = 0; w < kKeptThreads / 32; w++) all += squares[w];
    if (thread == 0) norm->squares[b * gridDim.x + blockIdx.x] = all;
  }
  if (tokens < p.kept) return;
  const T* const row_x = static_cast<const T*>(p.x) + static_cast<long long>(b) * p.x_pitch + first;
  fold<T, N>(state, own_state, of_B, p.kept, weight, decay, [&](int s, int at) {
    return s < held ? to_float(static_cast<const T*>(p.kept_x)[place(s) * width + first + at]) : s == held ? to_float(row_x[at]) : 0.0f;
  });
}
