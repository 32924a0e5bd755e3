// Layer: CUDA kernels. A token of the Mamba-2 scan beside a state of some tokens ago, where token and state are of one type of 16 bits: products
// of the state and of the kept B with C on tensor cores, so that few instructions stand beside the bytes. Everything else: ssd_deferred.cuh,
// whose parameters and formulas these are. Knows the scan's layouts.
//
// A block has kKeptChannels channels of a row, of one group; a warp has kWarpChannels of them, of one head. The state goes to shared memory by
// copies that are enqueued first of all: what the kept tokens want is done while they are on their way. All columns of the right side are C.
#pragma once

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

/// Lines of N elements in shared memory, in vectors of 16 bytes whose order differs from line to line: a column of vectors is in all banks.
template <typename T, int N>
__device__ __forceinline__ T* vector_of(T* lines, int line, int vector) {
  return lines + line * N + (vector ^ (line & 7)) * 8;
}
/// A (16 x 16) from such lines: from `line` on, and of the elements from 16 k on.
template <typename T, int N>
__device__ __forceinline__ void load_a_of(HalfA& a, T* lines, int line, int k) {
  const int lane = threadIdx.x % 32;
  load_matrices(a.at, vector_of<T, N>(lines, line + lane % 16, 2 * k + lane / 16));
}

/// Of 16 sums, each over a row of 8 equal columns, that of row `lane` % 16.
__device__ __forceinline__ float of_line(const float (&sums)[4], int lane) {
  const float low = __shfl_sync(kFullMask, sums[0], lane % 8 * 4), high = __shfl_sync(kFullMask, sums[2], lane % 8 * 4);
  return lane % 16 < 8 ? low : high;
}

template <typename T, int N>
__device__ __forceinline__ void ssd_kept(const SsdDeferred& p, const KeptNorm* norm = nullptr) {
  constexpr int VECTORS = N / 8, TILES = kWarpChannels / 16;
  __shared__ __align__(128) T states[kKeptChannels * N];
  __shared__ __align__(128) T of_B[kMostKept * N];
  __shared__ __align__(16) T of_C[N];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, b = blockIdx.y;
  const int width = p.heads * p.head_dim, block = blockIdx.x * kKeptChannels, first = block + warp * kWarpChannels;
  const int head = first / p.head_dim, group = head / (p.heads / p.groups), channel = first + lane;
  T* const state = static_cast<T*>(p.state) + (static_cast<long long>(b) * width + first) * N;
  T* const own_state = states + warp * kWarpChannels * N;
  const auto place = [&](int s) { return static_cast<long long>(b) * p.kept + s; };
  let_next_start();
  if (lane == 0) prefetch_row(state, kWarpChannels * N * static_cast<int>(sizeof(T)));
  wait_for_previous();

#pragma unroll
  for (int i = 0; i < VECTORS; i++) {
    const int at = 32 * i + lane;
    copy_16(vector_of<T, N>(own_state, at / VECTORS, at % VECTORS), state + at * 8, 16);
  }
  close_copies();
  // All places are read, whatever they hold, and also where another block writes this token's: how many of them count is on its way as well.
  const int counted = *p.count;
  constexpr int EACH = kMostKept * VECTORS / kKeptThreads;
  const T* const own_B = static_cast<const T*>(p.B) + static_cast<long long>(b) * p.B_pitch + group * N + thread % VECTORS * 8;
  const Vector<T, 8> own_line = *reinterpret_cast<const Vector<T, 8>*>(own_B);
  Vector<T, 8> lines[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const int s = min((kKeptThreads * i + thread) / VECTORS, p.kept - 1);
    const T* const from = static_cast<const T*>(p.kept_B) + (place(s) * p.groups + group) * N + thread % VECTORS * 8;
    lines[i] = *reinterpret_cast<const Vector<T, 8>*>(from);
  }
  // x of this token and of those that are kept, of the lane's channel.
  const T own = static_cast<const T*>(p.x)[static_cast<long long>(b) * p.x_pitch + channel];
  const T* const kept_x = static_cast<const T*>(p.kept_x) + place(0) * width + channel;
  T x[kMostKept];
#pragma unroll
  for (int s = 0; s < kMostKept; s++) x[s] = kept_x[min(s, p.kept - 1) * width];
  const int held = counted % p.kept, tokens = held + 1;
  const float gate = norm ? to_float(static_cast<const T*>(norm->z)[static_cast<long long>(b) * norm->z_pitch + channel]) : 0.0f;
  const float norm_weight = norm ? to_float(static_cast<const T*>(norm->weight)[channel]) : 0.0f;
  float step = 0.0f;
  if (lane < held) {
    step = p.kept_steps[place(lane) * p.heads + head];
  } else if (lane == held) {
    step = to_float(static_cast<const T*>(p.dt)[static_cast<long long>(b) * p.dt_pitch + head]) + (p.bias ? p.bias[head] : 0.0f);
    if (p.softplus) step = softplus(step);
    step = fminf(fmaxf(step, p.low), p.high);
    if (first % p.head_dim == 0) p.kept_steps[place(held) * p.heads + head] = step;
  }
  if (thread < VECTORS) {
    const T* const from = static_cast<const T*>(p.C) + static_cast<long long>(b) * p.C_pitch + group * N + 8 * thread;
    *reinterpret_cast<Vector<T, 8>*>(of_C + 8 * thread) = *reinterpret_cast<const Vector<T, 8>*>(from);
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const int at = kKeptThreads * i + thread, s = at / VECTORS;
    uint4* const to = reinterpret_cast<uint4*>(vector_of<T, N>(of_B, s, at % VECTORS));
    *to = s < held ? *reinterpret_cast<const uint4*>(&lines[i]) : s == held ? *reinterpret_cast<const uint4*>(&own_line) : make_uint4(0, 0, 0, 0);
  }
  // Lane s: of token s and those after it.
  float sum = step * (p.A[head] * kLog2E);
#pragma unroll
  for (int i = 1; i < kMostKept; i <<= 1) {
    const float after = __shfl_down_sync(kFullMask, sum, i);
    if (lane + i < 32) sum += after;
  }
  const float weight = exp2_fast(__shfl_down_sync(kFullMask, sum, 1)) * step, decay = exp2_fast(__shfl_sync(kFullMask, sum, 0));
  __syncthreads();

  HalfB C[N / 16];
  float sums[4] = {};
#pragma unroll
  for (int k = 0; k < N / 16; k++) {
#pragma unroll
    for (int i = 0; i < 2; i++) C[k].at[i] = *reinterpret_cast<const uint32_t*>(of_C + 16 * k + 8 * i + lane % 4 * 2);
    HalfA a;
    load_a_of<T, N>(a, of_B, 0, k);
    multiply<T>(sums, a, C[k]);
  }
  const float factor = weight * of_line(sums, lane);
  float y = (p.D ? p.D[p.D_by_channel ? channel : head] : 0.0f) * to_float(own);
#pragma unroll
  for (int s = 0; s < kMostKept; s++) y = fmaf(__shfl_sync(kFullMask, factor, s), to_float(s < held ? x[s] : own), y);
  static_cast<T*>(p.kept_x)[place(held) * width + channel] = own;
  // B is a group's: one of its blocks keeps it.
  if (block == group * (p.heads / p.groups) * p.head_dim && thread < VECTORS) {
    *reinterpret_cast<Vector<T, 8>*>(static_cast<T*>(p.kept_B) + (place(held) * p.groups + group) * N + 8 * thread) =
        *reinterpret_cast<const Vector<T, 8>*>(vector_of<T, N>(of_B, held, thread));
  }

  wait_copies<0>();
  __syncwarp();
  float old[TILES][4] = {};
#pragma unroll
  for (int i = 0; i < TILES; i++)
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
      HalfA a;
      load_a_of<T, N>(a, own_state, 16 * i, k);
      multiply<T>(old[i], a, C[k]);
    }
  const float low = of_line(old[0], lane), high = of_line(old[1], lane);
  y = fmaf(decay, lane < 16 ? low : high, y);
  if (p.z) y *= silu(to_float(static_cast<const T*>(p.z)[static_cast<long long>(b) * p.z_pitch + channel]));
  const T rounded = from_float<T>(y);
  static_cast<T*>(p.y)[static_cast<long long>(b) * p.y_pitch + channel] = rounded;
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
  __syncwarp();

  // All tokens go into the state: decay h + x' B, where x' = weight x is the sum of three numbers of 16 bits.
#pragma unroll 1
  for (int tile = 0; tile < TILES; tile++) {
    HalfA parts[3];
#pragma unroll
    for (int q = 0; q < 4; q++) {
      float v[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int s = lane % 4 * 2 + q / 2 * 8 + e, at = first + 16 * tile + lane / 4 + q % 2 * 8;
        const T* const from = s < held ? static_cast<const T*>(p.kept_x) + place(s) * width : static_cast<const T*>(p.x) + static_cast<long long>(b) * p.x_pitch;
        v[e] = __shfl_sync(kFullMask, weight, s) * (s < tokens ? to_float(from[at]) : 0.0f);
      }
#pragma unroll
      for (int i = 0; i < 3; i++) {
        parts[i].at[q] = pack<T>(v[0], v[1]);
        v[0] -= round_to<T>(v[0]);
        v[1] -= round_to<T>(v[1]);
      }
    }
#pragma unroll 1
    for (int j = 0; j < N / 16; j++) {
      uint32_t r[4];
      load_matrices_transposed(r, vector_of<T, N>(of_B, lane % 16, 2 * j + lane / 16));
#pragma unroll
      for (int h = 0; h < 2; h++) {
        uint32_t* at[2];
        float to[4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          at[half] = reinterpret_cast<uint32_t*>(vector_of<T, N>(own_state, 16 * tile + lane / 4 + 8 * half, 2 * j + h) + lane % 4 * 2);
          const float2 h0 = unpack<T>(*at[half]);
          to[2 * half] = decay * h0.x;
          to[2 * half + 1] = decay * h0.y;
        }
#pragma unroll
        for (int i = 2; i >= 0; i--) multiply<T>(to, parts[i], HalfB{r[2 * h], r[2 * h + 1]});
#pragma unroll
        for (int half = 0; half < 2; half++) *at[half] = pack<T>(to[2 * half], to[2 * half + 1]);
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < VECTORS; i++) {
    const int at = 32 * i + lane;
    *reinterpret_cast<uint4*>(state + at * 8) = *reinterpret_cast<const uint4*>(vector_of<T, N>(own_state, at / VECTORS, at % VECTORS));
  }
}
