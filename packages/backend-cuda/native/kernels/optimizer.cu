// Layer: CUDA kernels. The norm of a list of tensors and AdamW over a list of parameters, one launch for all: a table on the device says
// where they lie. Formulas: the reference. Knows no parameter by name.

#include "common.cuh"

/// Elements that a block takes of one tensor.
constexpr int kChunk = 16384;

/// The entry whose chunks hold chunk `chunk`; entries' first chunks are `stride` words apart.
__device__ __forceinline__ int entry_of(const long long* firsts, int stride, int entries, int chunk) {
  int low = 0, high = entries - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (firsts[middle * stride] <= chunk) low = middle;
    else high = middle - 1;
  }
  return low;
}

/// Types by number: f32, bf16, f16.
__device__ __forceinline__ float element(const void* from, int type, long long i) {
  return type == 0 ? static_cast<const float*>(from)[i]
         : type == 1 ? to_float(static_cast<const bf16*>(from)[i])
                     : to_float(static_cast<const f16*>(from)[i]);
}
__device__ __forceinline__ void set_element(void* to, int type, long long i, float x) {
  if (type == 0) static_cast<float*>(to)[i] = x;
  else if (type == 1) static_cast<bf16*>(to)[i] = from_float<bf16>(x);
  else static_cast<f16*>(to)[i] = from_float<f16>(x);
}

/// Four elements from a place that is a multiple of four.
__device__ __forceinline__ void four(const void* from, int type, long long i, float (&x)[4]) {
  if (type == 0) load<4>(static_cast<const float*>(from) + i, x);
  else if (type == 1) load<4>(static_cast<const bf16*>(from) + i, x);
  else load<4>(static_cast<const f16*>(from) + i, x);
}
__device__ __forceinline__ void set_four(void* to, int type, long long i, const float (&x)[4]) {
  if (type == 0) store<4>(static_cast<float*>(to) + i, x);
  else if (type == 1) store<4>(static_cast<bf16*>(to) + i, x);
  else store<4>(static_cast<f16*>(to) + i, x);
}

struct NormEntry {
  long long first_chunk;
  const void* address;
  long long count;
  /// Type, + 16 where four elements are aligned.
  long long type;
};

/// parts[chunk] = the sum of squares of a chunk.
extern "C" __global__ void __launch_bounds__(256) norm_parts(const NormEntry* table, int entries, float* parts) {
  __shared__ float scratch[32];
  const int e = entry_of(&table[0].first_chunk, sizeof(NormEntry) / 8, entries, blockIdx.x);
  const NormEntry entry = table[e];
  const int type = entry.type & 15;
  const long long from = (blockIdx.x - entry.first_chunk) * kChunk;
  const long long to = min(entry.count, from + kChunk);
  float sum = 0.0f;
  if (entry.type & 16) {
#pragma unroll 4
    for (long long i = from + 4 * threadIdx.x; i + 3 < to; i += 1024) {
      float x[4];
      four(entry.address, type, i, x);
      sum += (x[0] * x[0] + x[1] * x[1]) + (x[2] * x[2] + x[3] * x[3]);
    }
    const long long tail = from + (to - from) / 4 * 4 + threadIdx.x;
    if (tail < to) {
      const float x = element(entry.address, type, tail);
      sum += x * x;
    }
  } else {
    for (long long i = from + threadIdx.x; i < to; i += 256) {
      const float x = element(entry.address, type, i);
      sum += x * x;
    }
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// out = the square root of the sum of the parts. One block of 1024 threads; in double, so that squares of large norms stay finite.
extern "C" __global__ void __launch_bounds__(1024) norm_whole(const float* parts, int count, float* out) {
  __shared__ double scratch[32];
  double sum = 0.0;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += 1024) sum += static_cast<double>(parts[i]);
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(kFullMask, sum, step);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = scratch[threadIdx.x];
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(kFullMask, sum, step);
  if (threadIdx.x == 0) *out = static_cast<float>(sqrt(sum));
}

struct AdamEntry {
  long long first_chunk;
  void* param;
  const void* grad;
  float* m;
  float* v;
  void* copy;
  long long count;
  /// Of param, grad and copy, four bits each; then 1 where four elements are aligned everywhere.
  long long types;
  float decay;
  int unused;
};

struct AdamOptions {
  float beta1, beta2, eps;
  int entries;
  const float* lr;
  i32* step;
  const float* scale;
  const float* norm;
};

/// What is the same for all elements of a step: in double, as powers of the betas want it.
struct AdamStep {
  float lr, scale, step_size, root;
};

__device__ __forceinline__ AdamStep adam_step(const AdamOptions& o) {
  const int t = *o.step + 1;
  const double lr = *o.lr;
  return {static_cast<float>(lr), *o.scale, static_cast<float>(lr / (1.0 - pow(static_cast<double>(o.beta1), t))),
          static_cast<float>(1.0 / sqrt(1.0 - pow(static_cast<double>(o.beta2), t)))};
}

__device__ __forceinline__ void adam_element(float& p, float grad, float& m, float& v, const AdamOptions& o,
                                             const AdamStep& s, float kept) {
  const float g = s.scale * grad;
  m = o.beta1 * m + (1.0f - o.beta1) * g;
  v = o.beta2 * v + (1.0f - o.beta2) * g * g;
  p = kept * p - s.step_size * m / (sqrtf(v) * s.root + o.eps);
}

extern "C" __global__ void __launch_bounds__(256) adamw(const AdamEntry* table, AdamOptions o) {
  if (!isfinite(*o.norm)) return;
  __shared__ AdamStep shared;
  if (threadIdx.x == 0) shared = adam_step(o);
  __syncthreads();
  const AdamStep s = shared;
  const int found = entry_of(&table[0].first_chunk, sizeof(AdamEntry) / 8, o.entries, blockIdx.x);
  const AdamEntry e = table[found];
  const int types = static_cast<int>(e.types), p_type = types & 15, g_type = types >> 4 & 15, c_type = types >> 8 & 15;
  const float kept = 1.0f - s.lr * e.decay;
  const long long from = (blockIdx.x - e.first_chunk) * kChunk;
  const long long to = min(e.count, from + kChunk);
  long long i = from + threadIdx.x;
  if (types >> 12 & 1) {
    for (long long j = from + 4 * threadIdx.x; j + 3 < to; j += 1024) {
      float p[4], g[4], m[4], v[4];
      four(e.param, p_type, j, p);
      four(e.grad, g_type, j, g);
      load<4>(e.m + j, m);
      load<4>(e.v + j, v);
#pragma unroll
      for (int k = 0; k < 4; k++) adam_element(p[k], g[k], m[k], v[k], o, s, kept);
      set_four(e.param, p_type, j, p);
      store<4>(e.m + j, m);
      store<4>(e.v + j, v);
      if (e.copy != nullptr) set_four(e.copy, c_type, j, p);
    }
    i = from + (to - from) / 4 * 4 + threadIdx.x;
  }
  for (; i < to; i += 256) {
    float p = element(e.param, p_type, i), m = e.m[i], v = e.v[i];
    adam_element(p, element(e.grad, g_type, i), m, v, o, s, kept);
    set_element(e.param, p_type, i, p);
    e.m[i] = m;
    e.v[i] = v;
    if (e.copy != nullptr) set_element(e.copy, c_type, i, p);
  }
}

/// After all of adamw's blocks, which read the step before it.
extern "C" __global__ void adamw_step(AdamOptions o) {
  if (isfinite(*o.norm)) *o.step += 1;
}
