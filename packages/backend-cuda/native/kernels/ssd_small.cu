// Layer: CUDA kernels. What surrounds the Mamba-2 scan's products: steps and summed decays of each tile before them; after the backward
// pass the sums over heads, tokens and rows, in a fixed order. Knows the layouts of ssd_forward.cuh and ssd_backward.cuh.

#include "ssd_step.cuh"

struct SsdSteps {
  const void* dt;
  const float* A;
  const float* bias;
  const int* seq;
  const int* lengths;
  /// (B, H, tiles, Q): dt after bias, softplus and limits, 0 for padding; the running sum of dt A log2(e) in each tile.
  float* steps;
  float* sums;
  /// (B, tiles, Q): restarts of the state in the tile, up to and with each token; only with seq.
  int* restarts;
  int dt_pitch;
  SsdSizes s;
  int softplus;
  float low, high;
};

template <typename T, int Q>
__device__ __forceinline__ void ssd_steps(const SsdSteps& p) {
  const SsdSizes& s = p.s;
  const int q = blockIdx.x, b = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int tiles = s.chunks * s.per_chunk;
  constexpr int each = Q / 32;
  const SsdTokens<Q> tokens(s, q / s.per_chunk, q % s.per_chunk, ssd_end(s, p.lengths, b));
  const long long row0 = static_cast<long long>(b) * s.length + tokens.first;
  for (int h = warp; h < s.heads; h += blockDim.x / 32) {
    float step[each], sum[each], total = 0.0f;
#pragma unroll
    for (int k = 0; k < each; k++) {
      const int t = lane * each + k;
      step[k] = 0.0f;
      if (t < tokens.count) {
        float v = to_float(static_cast<const T*>(p.dt)[(row0 + t) * p.dt_pitch + h]) + (p.bias ? p.bias[h] : 0.0f);
        if (p.softplus) v = softplus(v);
        step[k] = fminf(fmaxf(v, p.low), p.high);
      }
      total += step[k] * (p.A[h] * kLog2E);
      sum[k] = total;
    }
    float before = total;
#pragma unroll
    for (int i = 1; i < 32; i <<= 1) {
      const float up = __shfl_up_sync(kFullMask, before, i);
      if (lane >= i) before += up;
    }
    before -= total;
    const long long at = ((static_cast<long long>(b) * s.heads + h) * tiles + q) * Q + lane * each;
#pragma unroll
    for (int k = 0; k < each; k++) {
      p.steps[at + k] = step[k];
      p.sums[at + k] = before + sum[k];
    }
  }
  if (p.seq && warp == 0) {
    int count[each], total = 0;
#pragma unroll
    for (int k = 0; k < each; k++) {
      const int t = lane * each + k;
      const int* const at = p.seq + row0 + t;
      total += t < tokens.count && tokens.first + t > 0 && at[0] != at[-1];
      count[k] = total;
    }
    int before = total;
#pragma unroll
    for (int i = 1; i < 32; i <<= 1) {
      const int up = __shfl_up_sync(kFullMask, before, i);
      if (lane >= i) before += up;
    }
    before -= total;
#pragma unroll
    for (int k = 0; k < each; k++)
      p.restarts[(static_cast<long long>(b) * tiles + q) * Q + lane * each + k] = before + count[k];
  }
}

struct SsdShared {
  const void* partial;
  const int* lengths;
  void* dB;
  void* dC;
  int dB_pitch, dC_pitch;
  SsdSizes s;
  /// Blocks of all heads, and N padded.
  int blocks, padded;
};

/// dB and dC: the sums over the blocks of a group. A thread has 8 elements of a tile, in the order of fragments.
template <typename T, int Q>
__device__ __forceinline__ void ssd_shared(const SsdShared& p) {
  const SsdSizes& s = p.s;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, tiles = s.chunks * s.per_chunk;
  const int q = blockIdx.x % tiles, which = blockIdx.x / tiles % 2, group = blockIdx.x / tiles / 2, b = blockIdx.z;
  if (i >= Q * p.padded / 8) return;
  void* const out = which ? p.dC : p.dB;
  if (out == nullptr) return;
  const int of_group = p.blocks / s.groups;
  const T* from = static_cast<const T*>(p.partial) +
                  (((static_cast<long long>(b) * tiles + q) * p.blocks + group * of_group) * 2 + which) * Q * p.padded + i * 8;
  float sum[8] = {};
#pragma unroll 8
  for (int k = 0; k < of_group; k++) {
    float v[8];
    load<8>(from, v);
    from += 2ll * Q * p.padded;
#pragma unroll
    for (int e = 0; e < 8; e++) sum[e] += v[e];
  }
  const SsdTokens<Q> tokens(s, q / s.per_chunk, q % s.per_chunk, s.length);
  const int lane = i % 32, t = i / 32 % (p.padded / 32), warp = i / p.padded;
  const int row = warp % (Q / 16) * 16 + lane / 4, column = warp / (Q / 16) * (p.padded / 2) + t * 16 + lane % 4 * 2;
  const int pitch = which ? p.dC_pitch : p.dB_pitch;
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const int token = row + e / 2 % 2 * 8, n = column + e / 4 * 8 + e % 2;
    if (token >= tokens.nominal || n >= s.d_state) continue;
    static_cast<T*>(out)[(static_cast<long long>(b) * s.length + tokens.first + token) * pitch + group * s.d_state + n] = from_float<T>(sum[e]);
  }
}

struct SsdFinish {
  const void* dt;
  const float* A;
  const float* bias;
  const int* lengths;
  /// As in SsdBackward.
  const float* sums;
  void* ddt;
  /// (2, B, parts, H): dA and the gradient of the bias by parts of rows.
  float* by_row;
  int dt_pitch, ddt_pitch;
  SsdSizes s;
  int softplus;
  float low, high;
};

/// From d(dt_t A) and x_t . dX_t to ddt = A d(dt A) + x . dX, through limits and softplus. A block has a head of some tiles of a row.
template <typename T, int Q>
__device__ __forceinline__ void ssd_finish(const SsdFinish& p) {
  __shared__ float scratch[32];
  const SsdSizes& s = p.s;
  const int h = blockIdx.x, b = blockIdx.y, tiles = s.chunks * s.per_chunk, end = ssd_end(s, p.lengths, b);
  const int each = (tiles + gridDim.z - 1) / gridDim.z, first = blockIdx.z * each, last = min(first + each, tiles);
  const long long plane = static_cast<long long>(gridDim.y) * s.blocks_per_head * s.heads * tiles * Q;
  const float A = p.A[h], bias = p.bias ? p.bias[h] : 0.0f;
  float dA = 0.0f, dbias = 0.0f;
  for (int q = first + threadIdx.x / Q; q < last; q += blockDim.x / Q) {
    const int t = threadIdx.x % Q;
    const SsdTokens<Q> tokens(s, q / s.per_chunk, q % s.per_chunk, end);
    if (t >= tokens.nominal) continue;
    const long long row = static_cast<long long>(b) * s.length + tokens.first + t;
    float ddt = 0.0f;
    if (t < tokens.count) {
      const float raw = to_float(static_cast<const T*>(p.dt)[row * p.dt_pitch + h]) + bias;
      float decay = 0.0f, inner = 0.0f;
      for (int part = 0; part < s.blocks_per_head; part++) {
        const float* at = p.sums + (((static_cast<long long>(b) * s.blocks_per_head + part) * s.heads + h) * tiles + q) * Q + t;
        decay += at[0];
        inner += at[plane];
      }
      const float value = p.softplus ? softplus(raw) : raw;
      dA += fminf(fmaxf(value, p.low), p.high) * decay;
      if (value >= p.low && value <= p.high) ddt = A * decay + inner;
      if (p.softplus) ddt *= sigmoid(raw);
    }
    dbias += ddt;
    if (p.ddt) static_cast<T*>(p.ddt)[row * p.ddt_pitch + h] = from_float<T>(ddt);
  }
  dA = block_sum(dA, scratch);
  dbias = block_sum(dbias, scratch);
  if (threadIdx.x == 0) {
    const int rows = gridDim.y * gridDim.z, at = b * gridDim.z + blockIdx.z;
    p.by_row[at * s.heads + h] = dA;
    p.by_row[(rows + at) * s.heads + h] = dbias;
  }
}

/// g = dy silu(z) and dz = dy y silu'(z) of rows of `width`; y is that before the gate.
template <typename T>
__device__ __forceinline__ void ssd_gate(const T* dy, const T* z, const T* y, T* g, T* dz, const int* lengths, int dy_pitch, int z_pitch,
                                         int dz_pitch, int length, int width) {
  const long long row = blockIdx.x;
  const bool real = !lengths || static_cast<int>(row % length) < lengths[row / length];
  for (int c = blockIdx.y * blockDim.x + threadIdx.x; c < width; c += gridDim.y * blockDim.x) {
    const float zv = real ? to_float(z[row * z_pitch + c]) : 0.0f, d = real ? to_float(dy[row * dy_pitch + c]) : 0.0f;
    g[row * width + c] = from_float<T>(d * silu(zv));
    if (dz) dz[row * dz_pitch + c] = from_float<T>(real ? d * to_float(y[row * width + c]) * silu_gradient(zv) : 0.0f);
  }
}

#define KERNELS(name, T)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(256) ssd_steps_##name##_64(const __grid_constant__ SsdSteps p) { ssd_steps<T, 64>(p); }     \
  extern "C" __global__ void __launch_bounds__(256) ssd_steps_##name##_32(const __grid_constant__ SsdSteps p) { ssd_steps<T, 32>(p); }     \
  extern "C" __global__ void __launch_bounds__(256) ssd_shared_##name##_64(const __grid_constant__ SsdShared p) { ssd_shared<T, 64>(p); }  \
  extern "C" __global__ void __launch_bounds__(256) ssd_shared_##name##_32(const __grid_constant__ SsdShared p) { ssd_shared<T, 32>(p); }  \
  extern "C" __global__ void __launch_bounds__(256) ssd_finish_##name##_64(const __grid_constant__ SsdFinish p) { ssd_finish<T, 64>(p); }  \
  extern "C" __global__ void __launch_bounds__(256) ssd_finish_##name##_32(const __grid_constant__ SsdFinish p) { ssd_finish<T, 32>(p); }  \
  extern "C" __global__ void __launch_bounds__(256) ssd_gate_##name(const T* dy, const T* z, const T* y, T* g, T* dz,          \
                                                                    const int* lengths, int dy_pitch, int z_pitch,            \
                                                                    int dz_pitch, int length, int width) {                    \
    ssd_gate<T>(dy, z, y, g, dz, lengths, dy_pitch, z_pitch, dz_pitch, length, width);                                         \
  }
DIFFMAMBA_FLOATS(KERNELS)

/// A token's kernels, by the type of what comes in and what the state lies in.
#define STEP_KERNELS(name, T, H)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(128) ssd_step_##name(const __grid_constant__ SsdStep p) { ssd_step<T, H>(p); }                \
  extern "C" __global__ void __launch_bounds__(128) ssd_single_##name##_64(const __grid_constant__ SsdStep p) { ssd_single<T, H, 64>(p); }   \
  extern "C" __global__ void __launch_bounds__(128) ssd_single_##name##_128(const __grid_constant__ SsdStep p) { ssd_single<T, H, 128>(p); } \
  extern "C" __global__ void __launch_bounds__(128) ssd_single_##name##_256(const __grid_constant__ SsdStep p) { ssd_single<T, H, 256>(p); }
DIFFMAMBA_STATES(STEP_KERNELS)

/// Sums over the rows of a batch for one head: dA and the bias's gradient (H,), from `parts` sums a row, and dD, (H,) or (H, P).
/// Absent ones are null.
extern "C" __global__ void __launch_bounds__(128) ssd_rows(const float* by_row, const float* dD_by_row, float* dA, float* dbias, float* dD,
                                                           int batch, int parts, int heads, int head_dim, int D_by_channel) {
  __shared__ float scratch[32];
  const int h = blockIdx.x, rows = batch * parts;
  float a = 0.0f, bias = 0.0f, skip = 0.0f;
  for (int i = threadIdx.x; i < rows; i += blockDim.x) {
    a += by_row[i * heads + h];
    bias += by_row[(rows + i) * heads + h];
  }
  const auto dD_of = [&](int b, int c) { return dD_by_row[(static_cast<long long>(b) * heads + h) * head_dim + c]; };
  if (dD && D_by_channel) {
    for (int c = threadIdx.x; c < head_dim; c += blockDim.x) {
      float sum = 0.0f;
      for (int b = 0; b < batch; b++) sum += dD_of(b, c);
      dD[h * head_dim + c] = sum;
    }
  } else if (dD) {
    for (int i = threadIdx.x; i < batch * head_dim; i += blockDim.x) skip += dD_of(i / head_dim, i % head_dim);
  }
  a = block_sum(a, scratch);
  bias = block_sum(bias, scratch);
  skip = block_sum(skip, scratch);
  if (threadIdx.x > 0) return;
  if (dA) dA[h] = a;
  if (dbias) dbias[h] = bias;
  if (dD && !D_by_channel) dD[h] = skip;
}
