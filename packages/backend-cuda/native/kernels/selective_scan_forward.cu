// Layer: CUDA kernels. The selective scan (S6): a block walks over a row's tokens for 32 channels, states in registers, four lanes
// to a channel. Steps of a tile are made before it and gates after it by whole rows. Knows no gradient.
//
// Floor at B 8, L 2048, D 1536, N 16 in bf16: u, delta, z and y are 201 MB, 0.067 ms at 3 TB/s; 403 M exponentials at 16 a clock and
// multiprocessor are 0.11 ms at 1.7 GHz. What bounds it are 30 instructions a token for each 128 states, and 14 for its row.

#include "selective_scan_step.cuh"

constexpr int kTokens = 32;

template <int S>
struct ScanForwardShared {
  alignas(16) float2 steps[kTokens][kScanChannels + 2];
  float B[kTokens][4 * S];
  float C[kTokens][4 * S];
  float y[kTokens][kScanChannels + 4];
};

template <typename T, int S>
__device__ __forceinline__ void selective_scan(const ScanForward& p) {
  extern __shared__ __align__(16) unsigned char memory[];
  ScanForwardShared<S>& m = *reinterpret_cast<ScanForwardShared<S>*>(memory);
  constexpr int N = 4 * S, vectors = kTokens * N * 2 / 8 / kScanThreads, back = kScanBack<S>;
  const ScanSizes& s = p.s;
  const int b = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const ScanBlock block(s, blockIdx.x);
  const int local = warp * 8 + lane % 8, channel = block.first + local;
  const bool there = channel < block.end;
  const int end = scan_end(s, p.lengths, b);
  const long long row0 = static_cast<long long>(b) * s.length;
  // Rows of eight: one token and eight channels a thread.
  const int token = threadIdx.x / 4, column = block.first + threadIdx.x % 4 * 8, columns = max(min(block.end - column, 8), 0);
  const long long group_column = static_cast<long long>(block.group) * s.d_state;

  float A[S], h[S];
  load_states<S>(A, p.A + static_cast<long long>(channel) * s.d_state, s.d_state, lane, there);
#pragma unroll
  for (int i = 0; i < S; i++) A[i] *= kLog2E;
  const auto state_row = [&](long long index) { return (index * s.channels + channel) * s.d_state; };
  const float* const start = p.start ? p.start + state_row(static_cast<long long>(b) * s.chunks + blockIdx.z)
                                     : p.initial ? static_cast<const float*>(p.initial) + state_row(b) : nullptr;
  load_states<S>(h, start, s.d_state, lane, there && start);
  float bias[8], skip[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    bias[i] = p.bias && i < columns ? p.bias[column + i] : 0.0f;
    skip[i] = p.D && i < columns ? p.D[column + i] : 0.0f;
  }

  const int per_chunk = (min(s.chunk_size, s.length) + kTokens - 1) / kTokens;
  const int first = p.start ? blockIdx.z * per_chunk : 0, last = p.start ? first + per_chunk : s.chunks * per_chunk;
  const auto tokens_of = [&](int tile) { return ScanTokens(s, tile / per_chunk, tile % per_chunk * kTokens, kTokens, end); };

  Eight<T> u, delta, z, bc[vectors];
  bool restart = false;
  const auto fetch = [&](int tile) {
    const ScanTokens t = tokens_of(tile);
    const long long row = row0 + t.first + token;
    const int count = token < t.count ? columns : 0;
    u.load(static_cast<const T*>(p.u) + row * p.u_pitch + column, count, p.aligned);
    delta.load(static_cast<const T*>(p.delta) + row * p.delta_pitch + column, count, p.aligned);
    if (p.z && p.y) z.load(static_cast<const T*>(p.z) + row * p.z_pitch + column, count, p.aligned);
#pragma unroll
    for (int i = 0; i < vectors; i++) {
      const int v = i * kScanThreads + threadIdx.x, at = v / (N / 8) % kTokens, n = v % (N / 8) * 8;
      const bool which = v / (N / 8) / kTokens;
      const T* const from = static_cast<const T*>(which ? p.C : p.B) + (row0 + t.first + at) * (which ? p.C_pitch : p.B_pitch) + group_column + n;
      bc[i].load(from, at < t.count ? s.d_state - n : 0, p.aligned);
    }
    if (p.seq) {
      restart = token < t.count && t.first + token > 0 && p.seq[row] != p.seq[row - 1];
    }
  };
  if (first < last) fetch(first);

  const bool writes_fine = p.fine != nullptr;
  for (int tile = first; tile < last; tile++) {
    const ScanTokens t = tokens_of(tile);
    const Eight<T> u_now = u, z_now = z;
    {
      float steps[8], us[8], packed[8];
      delta.unpack(steps);
      u.unpack(us);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        steps[i] += bias[i];
        if (p.softplus) steps[i] = scan_softplus<T>(steps[i]);
      }
      if (token >= t.count) {
#pragma unroll
        for (int i = 0; i < 8; i++) steps[i] = 0.0f;
      }
#pragma unroll
      for (int i = 0; i < 8; i++) us[i] *= steps[i];
      if (restart) {
#pragma unroll
        for (int i = 0; i < 8; i++) steps[i] = kRestart;
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          packed[2 * i] = steps[half * 4 + i];
          packed[2 * i + 1] = us[half * 4 + i];
        }
        write_eight(&m.steps[token][threadIdx.x % 4 * 8 + half * 4].x, packed);
      }
    }
#pragma unroll
    for (int i = 0; i < vectors; i++) {
      const int v = i * kScanThreads + threadIdx.x, at = v / (N / 8) % kTokens, n = v % (N / 8) * 8;
      float row[8];
      bc[i].unpack(row);
      write_eight((v / (N / 8) / kTokens ? m.C[at] : m.B[at]) + n, row);
    }
    __syncthreads();
    if (tile + 1 < last) fetch(tile + 1);
    if (p.states && tile % per_chunk == 0)
      store_states<S>(h, p.states + state_row(static_cast<long long>(b) * s.chunks + tile / per_chunk), s.d_state, lane, there);

    const int rounds = (t.nominal + 3) / 4;
#pragma unroll 2
    for (int round = 0; round < rounds; round++) {
      const int from = round * 4;
      float y[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        if (k % back == 0 && writes_fine && (from + k) % back == 0 && from + k < t.nominal) {
          const long long index = (static_cast<long long>(b) * s.chunks + tile / per_chunk) * p.fine_per_chunk +
                                  (tile % per_chunk * kTokens + from + k) / back;
          store_states<S>(h, p.fine + state_row(index), s.d_state, lane, there);
        }
        const float2 step = m.steps[from + k][local];
#pragma unroll
        for (int i = 0; i < S; i += 4) {
          const float4 Bt = *reinterpret_cast<const float4*>(&m.B[from + k][i * 4 + lane / 8 * 4]);
          const float4 Ct = *reinterpret_cast<const float4*>(&m.C[from + k][i * 4 + lane / 8 * 4]);
          h[i] = exp2_of(step.x * A[i]) * h[i] + step.y * Bt.x;
          h[i + 1] = exp2_of(step.x * A[i + 1]) * h[i + 1] + step.y * Bt.y;
          h[i + 2] = exp2_of(step.x * A[i + 2]) * h[i + 2] + step.y * Bt.z;
          h[i + 3] = exp2_of(step.x * A[i + 3]) * h[i + 3] + step.y * Bt.w;
          const float first_term = h[i] * Ct.x;
          y[k] = fmaf(h[i + 3], Ct.w, fmaf(h[i + 2], Ct.z, fmaf(h[i + 1], Ct.y, i == 0 ? first_term : y[k] + first_term)));
        }
      }
      m.y[from + lane / 8][local] = scatter_sum(y, lane);
    }
    __syncthreads();
    if (p.y && token < t.nominal && columns > 0) {
      float out[8], us[8], zs[8];
      read_eight(out, &m.y[token][threadIdx.x % 4 * 8]);
      u_now.unpack(us);
      z_now.unpack(zs);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        out[i] += skip[i] * us[i];
        if (p.z) out[i] *= scan_silu(zs[i]);
        if (token >= t.count) out[i] = 0.0f;
      }
      store_eight<T>(static_cast<T*>(p.y) + (row0 + t.first + token) * p.y_pitch + column, out, columns, p.aligned);
    }
  }
  if (p.final_state && !p.start) store_states<S>(h, static_cast<float*>(p.final_state) + state_row(b), s.d_state, lane, there);
}

/// A few tokens, with the same blocks and lanes.
template <typename T, int S, typename H>
__device__ __forceinline__ void selective_scan_few(const ScanForward& p) {
  const ScanSizes& s = p.s;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, b = blockIdx.y;
  const ScanBlock block(s, blockIdx.x);
  const int channel = block.first + warp * 8 + lane % 8;
  let_next_start();
  const int bytes = s.d_state * static_cast<int>(sizeof(H));
  if (p.initial && channel < block.end && lane < 8 && bytes % 16 == 0) {
    prefetch_row(static_cast<const H*>(p.initial) + (static_cast<long long>(b) * s.channels + channel) * s.d_state, bytes);
  }
  wait_for_previous();
  selective_scan_step<T, S, H>(p, blockIdx.x, warp, b);
}

#define KERNEL(name, T, N, S, Blocks)                                                                                                                              \
  extern "C" __global__ void __launch_bounds__(kScanThreads, Blocks) selective_scan_##name##_##N(const __grid_constant__ ScanForward p) { selective_scan<T, S>(p); }
#define KERNELS(name, T) KERNEL(name, T, 16, 4, 4) KERNEL(name, T, 64, 16, 3) KERNEL(name, T, 256, 64, 1)
DIFFMAMBA_FLOATS(KERNELS)

#define STEP_KERNEL(name, T, H, N, S)                                                                                              \
  extern "C" __global__ void __launch_bounds__(kScanThreads) selective_scan_step_##name##_##N(const __grid_constant__ ScanForward p) { \
    selective_scan_few<T, S, H>(p);                                                                                                \
  }
#define STEP_KERNELS(name, T, H) STEP_KERNEL(name, T, H, 16, 4) STEP_KERNEL(name, T, H, 64, 16) STEP_KERNEL(name, T, H, 256, 64)
DIFFMAMBA_STATES(STEP_KERNELS)
