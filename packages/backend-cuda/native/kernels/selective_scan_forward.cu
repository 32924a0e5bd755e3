// Layer: CUDA kernels. The selective scan (S6): a block walks over a row's tokens for 32 channels, states in registers, four lanes
// to a channel. Steps of a tile are made before it and gates after it by whole rows. Knows no gradient.
//
// Floor at B 8, L 2048, D 1536, N 16 in bf16: u, delta, z and y are 201 MB, 0.067 ms at 3 TB/s; 403 M exponentials at 16 a
// clock and multiprocessor are 0.11 ms at 1.7 GHz, which is what bounds it.

#include "selective_scan.cuh"

struct ScanForward {
  const void* u;
  const void* delta;
  const float* A;
  const void* B;
  const void* C;
  const void* z;
  const float* D;
  const float* bias;
  const float* initial;
  const int* seq;
  const int* lengths;
  /// Where each saved chunk's state is known: a block for each, which makes no final state.
  const float* start;
  void* y;
  float* states;
  /// (B, chunks, per chunk, D, N): the states every kScanBack tokens.
  float* fine;
  float* final_state;
  int u_pitch, delta_pitch, B_pitch, C_pitch, z_pitch, y_pitch;
  ScanSizes s;
  int softplus, aligned, fine_per_chunk;
};

constexpr int kTokens = 32;

template <int S>
struct ScanForwardShared {
  alignas(16) float2 steps[kTokens][kScanChannels + 2];
  float B[kTokens][4 * S];
  float C[kTokens][4 * S];
  float y[kTokens][kScanChannels + 8];
  int restart[kTokens];
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
                                     : p.initial ? p.initial + state_row(b) : nullptr;
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
  int restart = 0;
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
    if (p.seq && threadIdx.x < kTokens) {
      const long long at = row0 + t.first + threadIdx.x;
      restart = threadIdx.x < t.count && t.first + threadIdx.x > 0 && p.seq[at] != p.seq[at - 1];
    }
  };
  if (first < last) fetch(first);

  for (int tile = first; tile < last; tile++) {
    const ScanTokens t = tokens_of(tile);
    const Eight<T> u_now = u, z_now = z;
    float steps[16];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float d = delta[i] + bias[i];
      if (p.softplus) d = scan_softplus<T>(d);
      if (token >= t.count) d = 0.0f;
      steps[2 * i] = d;
      steps[2 * i + 1] = d * u[i];
    }
    float4* const to = reinterpret_cast<float4*>(&m.steps[token][threadIdx.x % 4 * 8]);
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = make_float4(steps[4 * i], steps[4 * i + 1], steps[4 * i + 2], steps[4 * i + 3]);
#pragma unroll
    for (int i = 0; i < vectors; i++) {
      const int v = i * kScanThreads + threadIdx.x, at = v / (N / 8) % kTokens, n = v % (N / 8) * 8;
      float* const row = v / (N / 8) / kTokens ? m.C[at] : m.B[at];
      *reinterpret_cast<float4*>(row + n) = make_float4(bc[i][0], bc[i][1], bc[i][2], bc[i][3]);
      *reinterpret_cast<float4*>(row + n + 4) = make_float4(bc[i][4], bc[i][5], bc[i][6], bc[i][7]);
    }
    if (threadIdx.x < kTokens) m.restart[threadIdx.x] = restart;
    __syncthreads();
    if (tile + 1 < last) fetch(tile + 1);
    if (p.states && tile % per_chunk == 0)
      store_states<S>(h, p.states + state_row(static_cast<long long>(b) * s.chunks + tile / per_chunk), s.d_state, lane, there);

    for (int from = 0; from < t.nominal; from += 4) {
      float y[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        if (p.fine && (from + k) % back == 0 && from + k < t.nominal) {
          const long long index = (static_cast<long long>(b) * s.chunks + tile / per_chunk) * p.fine_per_chunk +
                                  (tile % per_chunk * kTokens + from + k) / back;
          store_states<S>(h, p.fine + state_row(index), s.d_state, lane, there);
        }
        if (p.seq && m.restart[from + k]) {
#pragma unroll
          for (int i = 0; i < S; i++) h[i] = 0.0f;
        }
        const float2 step = m.steps[from + k][local];
        y[k] = 0.0f;
#pragma unroll
        for (int i = 0; i < S; i += 4) {
          const float4 Bt = *reinterpret_cast<const float4*>(&m.B[from + k][i * 4 + lane / 8 * 4]);
          const float4 Ct = *reinterpret_cast<const float4*>(&m.C[from + k][i * 4 + lane / 8 * 4]);
          h[i] = exp2_of(step.x * A[i]) * h[i] + step.y * Bt.x;
          h[i + 1] = exp2_of(step.x * A[i + 1]) * h[i + 1] + step.y * Bt.y;
          h[i + 2] = exp2_of(step.x * A[i + 2]) * h[i + 2] + step.y * Bt.z;
          h[i + 3] = exp2_of(step.x * A[i + 3]) * h[i + 3] + step.y * Bt.w;
          y[k] += (h[i] * Ct.x + h[i + 1] * Ct.y) + (h[i + 2] * Ct.z + h[i + 3] * Ct.w);
        }
      }
      m.y[from + lane / 8][local] = scatter_sum(y, lane);
    }
    __syncthreads();
    if (p.y && token < t.nominal && columns > 0) {
      Eight<T> out;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float v = m.y[token][threadIdx.x % 4 * 8 + i] + skip[i] * u_now[i];
        if (p.z) v *= silu(z_now[i]);
        out.set(i, token < t.count ? v : 0.0f);
      }
      out.store(static_cast<T*>(p.y) + (row0 + t.first + token) * p.y_pitch + column, columns, p.aligned);
    }
  }
  if (p.final_state && !p.start) store_states<S>(h, p.final_state + state_row(b), s.d_state, lane, there);
}

#define KERNELS(name, T)                                                                                                                           \
  extern "C" __global__ void __launch_bounds__(kScanThreads, 3) selective_scan_##name##_16(const __grid_constant__ ScanForward p) { selective_scan<T, 4>(p); }    \
  extern "C" __global__ void __launch_bounds__(kScanThreads, 3) selective_scan_##name##_64(const __grid_constant__ ScanForward p) { selective_scan<T, 16>(p); }   \
  extern "C" __global__ void __launch_bounds__(kScanThreads, 1) selective_scan_##name##_256(const __grid_constant__ ScanForward p) { selective_scan<T, 64>(p); }
DIFFMAMBA_FLOATS(KERNELS)
