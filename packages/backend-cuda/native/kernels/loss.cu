// Layer: CUDA kernels. Cross-entropy of a softmax and its gradient, and drawing a token from each row of logits. A block to a row.
// Formulas: the reference. Knows no shape rule.

#include "overlap.cuh"
#include "philox.cuh"

/// Greatest element and sum of e^(x - greatest), as they are joined.
struct Mass {
  float top, sum;
};

__device__ __forceinline__ Mass join(Mass a, Mass b) {
  const float top = fmaxf(a.top, b.top);
  // Both sums are 0, or NaN where there is one in the row.
  if (top == -INFINITY) return {top, a.sum + b.sum};
  return {top, a.sum * __expf(a.top - top) + b.sum * __expf(b.top - top)};
}

/// For all threads of the block.
__device__ __forceinline__ Mass block_mass(Mass own, Mass* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const auto warp_mass = [](Mass m) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      const Mass other = {__shfl_xor_sync(kFullMask, m.top, step), __shfl_xor_sync(kFullMask, m.sum, step)};
      m = join(m, other);
    }
    return m;
  };
  own = warp_mass(own);
  __syncthreads();
  if (lane == 0) scratch[warp] = own;
  __syncthreads();
  return warp_mass(lane < warps ? scratch[lane] : Mass{-INFINITY, 0.0f});
}

/// This thread's share of a row.
template <int V, typename T>
__device__ __forceinline__ Mass row_mass(const T* row, int width) {
  Mass m = {-INFINITY, 0.0f};
  float none = 0.0f;
#pragma unroll 4
  for (int c = threadIdx.x * V; c < width; c += blockDim.x * V) {
    float x[V];
    load<V>(row + c, x);
    float top = m.top;
#pragma unroll
    for (int i = 0; i < V; i++) {
      top = fmaxf(top, x[i]);
      none += x[i] != x[i] ? NAN : 0.0f;
    }
    if (top == -INFINITY) continue;
    float sum = m.sum * __expf(m.top - top);
#pragma unroll
    for (int i = 0; i < V; i++) sum += __expf(x[i] - top);
    m = {top, sum};
  }
  m.sum += none;
  return m;
}

/// losses, logSumExp (R,); NaN where a target is no class and not the one that is ignored.
template <int V, typename T>
__device__ __forceinline__ void cross_entropy(const T* logits, const i32* targets, float* losses, float* log_sum_exp,
                                              int width, long long pitch, int ignored) {
  __shared__ Mass scratch[32];
  const long long r = blockIdx.x;
  const T* const row = logits + r * pitch;
  const Mass m = block_mass(row_mass<V>(row, width), scratch);
  if (threadIdx.x != 0) return;
  log_sum_exp[r] = m.top + logf(m.sum);
  const i32 target = targets[r];
  if (target == ignored) losses[r] = 0.0f;
  else if (target < 0 || target >= width) losses[r] = NAN;
  else losses[r] = logf(m.sum) - (to_float(row[target]) - m.top);
}

template <int V, typename T>
__device__ __forceinline__ void cross_entropy_backward(const T* logits, const i32* targets, const float* log_sum_exp,
                                                       const float* dlosses, T* dlogits, int width, long long pitch,
                                                       long long dpitch, int ignored) {
  const long long r = blockIdx.x;
  const i32 target = targets[r];
  const bool counts = target != ignored && dlosses != nullptr;
  const bool wrong = counts && (target < 0 || target >= width);
  const float scale = counts ? dlosses[r] : 0.0f;
  const float total = log_sum_exp[r];
  const int c = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (c >= width) return;
  float x[V];
  load<V>(logits + r * pitch + c, x);
#pragma unroll
  for (int i = 0; i < V; i++) {
    const float d = scale * (__expf(x[i] - total) - (c + i == target ? 1.0f : 0.0f));
    x[i] = wrong ? NAN : counts ? d : 0.0f;
  }
  store<V>(dlogits + r * dpitch + c, x);
}

#define DIFFMAMBA_LOSS(NAME, T, V)                                                                                    \
  extern "C" __global__ void __launch_bounds__(512) cross_entropy_##NAME##_v##V(                                      \
      const T* logits, const i32* targets, float* losses, float* log_sum_exp, int width, long long pitch,             \
      int ignored) {                                                                                                  \
    cross_entropy<V>(logits, targets, losses, log_sum_exp, width, pitch, ignored);                                    \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_##NAME##_v##V(                             \
      const T* logits, const i32* targets, const float* log_sum_exp, const float* dlosses, T* dlogits, int width,     \
      long long pitch, long long dpitch, int ignored) {                                                               \
    cross_entropy_backward<V>(logits, targets, log_sum_exp, dlosses, dlogits, width, pitch, dpitch, ignored);         \
  }
DIFFMAMBA_LOSS(f32, f32, 4) DIFFMAMBA_LOSS(bf16, bf16, 8) DIFFMAMBA_LOSS(f16, f16, 8)
DIFFMAMBA_LOSS(f32, f32, 1) DIFFMAMBA_LOSS(bf16, bf16, 1) DIFFMAMBA_LOSS(f16, f16, 1)

// ---- drawing a token ----

/// A float's bits in an order of unsigned numbers that is the floats' own.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
struct SampleOptions {
  float temperature;
  int top_k;
  float top_p, min_p;
};

/// Sums of seven numbers over a block of 1024 threads, for all of its threads. `scratch` holds 33 rows of 8.
__device__ __forceinline__ void block_sums(float (&x)[7], float (*scratch)[8]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int j = 0; j < 7; j++) x[j] = warp_sum(x[j]);
  __syncthreads();
  if (lane == 0) {
#pragma unroll
    for (int j = 0; j < 7; j++) scratch[warp][j] = x[j];
  }
  __syncthreads();
  if (warp == 0) {
#pragma unroll
    for (int j = 0; j < 7; j++) {
      const float sum = warp_sum(scratch[lane][j]);
      if (lane == 0) scratch[32][j] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 7; j++) x[j] = scratch[32][j];
}

/// The greatest key such that the elements of at least it reach `wanted` together, three bits at a time. element(c) gives a key and
/// what it counts for, of the classes that are asked for.
template <typename Element>
__device__ __forceinline__ uint32_t greatest_reaching(float wanted, int width, float (*scratch)[8], Element element) {
  uint32_t key = 0;
  for (int shift = 30; shift >= 0; shift -= 3) {
    float sums[7] = {};
    for (int c = threadIdx.x; c < width; c += 1024) {
      uint32_t own;
      float weight;
      element(c, own, weight);
      if (own < key) continue;
      // How many steps of 2^shift above `key` it lies.
      const uint32_t steps = (own - key) >> shift;
      if (steps == 0) continue;
#pragma unroll
      for (int j = 0; j < 7; j++) sums[j] += steps > static_cast<uint32_t>(j) ? weight : 0.0f;
    }
    block_sums(sums, scratch);
    int reached = 0;
#pragma unroll
    for (int j = 0; j < 7; j++) reached = sums[j] >= wanted && (shift < 30 || j < 3) ? j + 1 : reached;
    key += static_cast<uint32_t>(reached) << shift;
  }
  return key;
}

/// The first of this thread's share of a row, as row_mass<V> has it, that is `top`; `width` where none is.
template <int V, typename T>
__device__ __forceinline__ int first_of(const T* row, int width, float top) {
  int first = width;
#pragma unroll 4
  for (int c = threadIdx.x * V; c < width; c += blockDim.x * V) {
    float x[V];
    load<V>(row + c, x);
#pragma unroll
    for (int i = 0; i < V; i++) first = x[i] == top ? min(first, c + i) : first;
  }
  return first;
}

/// A block of 1024 threads to a row, which lies in shared memory where it fits and is drawn from (`cached`); thread i has the i-th run of classes,
/// so that running sums go in the order of classes.
template <typename T>
__device__ __forceinline__ void sample_row(const T* logits, const i32* keys, const i32* positions, i32* tokens,
                                           float* logprobs, int width, long long pitch, SampleOptions options, int cached,
                                           int vectors) {
  let_next_start();
  wait_for_previous();
  extern __shared__ __align__(16) float cache[];
  __shared__ Mass mass_scratch[32];
  __shared__ float scratch[33][8];
  __shared__ float warp_sums[32];
  __shared__ int chosen;
  constexpr int V = kVector<T>;
  const long long r = blockIdx.x;
  const T* const row = logits + r * pitch;
  if (threadIdx.x == 0) chosen = width;
  Mass own_mass = {-INFINITY, 0.0f};
  if (cached) {
    if (vectors) {
#pragma unroll 8
      for (int c = threadIdx.x * V; c < width; c += 1024 * V) {
        float x[V];
        load<V>(row + c, x);
#pragma unroll
        for (int i = 0; i < V; i += 4) *reinterpret_cast<float4*>(cache + c + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
      }
    } else {
#pragma unroll 8
      for (int c = threadIdx.x; c < width; c += 1024) cache[c] = to_float(row[c]);
    }
    __syncthreads();
    own_mass = vectors ? row_mass<4>(cache, width) : row_mass<1>(cache, width);
  } else {
    own_mass = vectors ? row_mass<V>(row, width) : row_mass<1>(row, width);
  }
  const Mass m = block_mass(own_mass, mass_scratch);
  const float log_sum = logf(m.sum);
  // NaN and infinities: nothing to draw from.
  if (!isfinite(m.top + log_sum)) {
    if (threadIdx.x == 0) {
      tokens[r] = -1;
      logprobs[r] = NAN;
    }
    return;
  }
  if (options.temperature == 0.0f) {
    if (own_mass.top == m.top) atomicMin(&chosen, vectors ? first_of<V>(row, width, m.top) : first_of<1>(row, width, m.top));
    __syncthreads();
    if (threadIdx.x == 0) {
      tokens[r] = chosen;
      logprobs[r] = -log_sum;
    }
    return;
  }
  const float temperature = options.temperature, top = m.top / temperature;
  if (cached) {
    // From here on what lies in shared memory is divided already, each element by the thread that has divided it.
    for (int c = threadIdx.x; c < width; c += 1024) cache[c] /= temperature;
    __syncthreads();
  }
  const auto z = [&](int c) { return cached ? cache[c] : to_float(row[c]) / temperature; };
  uint32_t least = 0;
  if (options.top_k > 0 && options.top_k < width) {
    least = greatest_reaching(static_cast<float>(options.top_k), width, scratch, [&](int c, uint32_t& key, float& weight) {
      key = ordered(z(c));
      weight = 1.0f;
    });
  }
  const int run = ((width + 1023) / 1024) | 1;
  const int from = min(width, static_cast<int>(threadIdx.x) * run), to = min(width, from + run);
  const auto weight = [&](int c) {
    const float x = z(c);
    return ordered(x) >= least && x != -INFINITY ? expf(x - top) : 0.0f;
  };
  if (options.top_p < 1.0f) {
    float all[7] = {};
    for (int c = threadIdx.x; c < width; c += 1024) all[0] += weight(c);
    block_sums(all, scratch);
    const uint32_t kept = least;
    least = max(kept, greatest_reaching(options.top_p * all[0], width, scratch, [&](int c, uint32_t& key, float& of) {
                  const float x = z(c);
                  key = ordered(x);
                  of = key >= kept && x != -INFINITY ? expf(x - top) : 0.0f;
                }));
  }
  if (options.min_p > 0.0f) least = max(least, ordered(top + logf(options.min_p)));

  float own = 0.0f;
  for (int c = from; c < to; c++) own += weight(c);
  // The sum of all runs before this one.
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float upto = own;
#pragma unroll
  for (int s = 1; s < 32; s <<= 1) {
    const float before = __shfl_up_sync(kFullMask, upto, s);
    if (lane >= s) upto += before;
  }
  if (lane == 31) warp_sums[warp] = upto;
  __syncthreads();
  float before = 0.0f, all = 0.0f;
  for (int w = 0; w < 32; w++) {
    if (w < warp) before += warp_sums[w];
    all += warp_sums[w];
  }
  const uint4 word = philox(make_uint4(0, 0, static_cast<uint32_t>(positions[r]), 0),
                            make_uint2(static_cast<uint32_t>(keys[2 * r]), static_cast<uint32_t>(keys[2 * r + 1])));
  const float limit = static_cast<float>(word.x >> 8) * 5.9604644775390625e-8f * all;
  float sum = before + (upto - own);
  int last = -1;
  if (own > 0.0f) {
    for (int c = from; c < to; c++) {
      const float w = weight(c);
      if (w == 0.0f) continue;
      sum += w;
      last = c;
      if (sum > limit) {
        atomicMin(&chosen, c);
        break;
      }
    }
  }
  __syncthreads();
  if (chosen == width) {
    // Rounding left the limit unreached: the last that stays.
    __syncthreads();
    if (threadIdx.x == 0) chosen = -1;
    __syncthreads();
    if (last >= 0) atomicMax(&chosen, last);
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  tokens[r] = chosen;
  logprobs[r] = (to_float(row[chosen]) - m.top) - log_sum;
}

#define DIFFMAMBA_SAMPLE(NAME, T)                                                                                     \
  extern "C" __global__ void __launch_bounds__(1024) sample_##NAME(                                                   \
      const T* logits, const i32* keys, const i32* positions, i32* tokens, float* logprobs, long long pitch,          \
      int width, SampleOptions options, int cached, int vectors) {                                                    \
    sample_row(logits, keys, positions, tokens, logprobs, width, pitch, options, cached, vectors);                    \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_SAMPLE)
