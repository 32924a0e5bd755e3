// Layer: CUDA kernels. What all of them share: element types as floats, vectors of 16 bytes, sums over warps and blocks in a fixed order.
// Knows no op. Every kernel is `extern "C"`, one for each element type, named `<op>_<dtype>`: see DIFFMAMBA_FLOATS.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;
typedef float f32;
typedef int32_t i32;
typedef uint8_t u8;

/// DECLARE(suffix, type) for each float type. A kernel file ends with such a list.
#define DIFFMAMBA_FLOATS(DECLARE) DECLARE(f32, f32) DECLARE(bf16, bf16) DECLARE(f16, f16)
#define DIFFMAMBA_TYPES(DECLARE) DIFFMAMBA_FLOATS(DECLARE) DECLARE(i32, i32) DECLARE(u8, u8)
/// DECLARE(suffix, type, type of a recurrent state): kernels of a token, whose name tells the state's type where it is not f32.
#define DIFFMAMBA_STATES(DECLARE)                                                                            \
  DECLARE(f32, f32, f32) DECLARE(bf16, bf16, f32) DECLARE(f16, f16, f32)                                     \
  DECLARE(f32_state_bf16, f32, bf16) DECLARE(bf16_state_bf16, bf16, bf16) DECLARE(f16_state_bf16, f16, bf16) \
  DECLARE(f32_state_f16, f32, f16) DECLARE(bf16_state_f16, bf16, f16) DECLARE(f16_state_f16, f16, f16)

constexpr unsigned kFullMask = 0xffffffffu;
constexpr float kLog2E = 1.4426950408889634f;

// ---- elements as floats ----

__device__ __forceinline__ float to_float(f32 x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_float(i32 x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(u8 x) { return static_cast<float>(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ f32 from_float<f32>(float x) { return x; }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ i32 from_float<i32>(float x) { return static_cast<i32>(x); }
template <>
__device__ __forceinline__ u8 from_float<u8>(float x) { return static_cast<u8>(x); }

/// The nearest value of T, as a float: what a tensor of T would hold.
template <typename T>
__device__ __forceinline__ float round_to(float x) { return to_float(from_float<T>(x)); }

// ---- vectors ----

/// N elements, loaded and stored as one access of up to 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T at[N];
};

template <int V, typename T>
__device__ __forceinline__ void read(Vector<T, V>& to, const T* from) {
  to = *reinterpret_cast<const Vector<T, V>*>(from);
}
template <int V, typename T>
__device__ __forceinline__ void widen(const Vector<T, V>& from, float (&to)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) to[i] = to_float(from.at[i]);
}

/// Elements of 16 bytes.
template <typename T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

template <int N, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  const Vector<T, N> v = *reinterpret_cast<const Vector<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; i++) to[i] = to_float(v.at[i]);
}

template <int N, typename T>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
  Vector<T, N> v;
#pragma unroll
  for (int i = 0; i < N; i++) v.at[i] = from_float<T>(from[i]);
  *reinterpret_cast<Vector<T, N>*>(to) = v;
}

// ---- functions ----

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

/// x sigmoid(x); 0 at minus infinity.
__device__ __forceinline__ float silu(float x) { return x == -INFINITY ? 0.0f : x / (1.0f + __expf(-x)); }

/// d silu(x) / dx
__device__ __forceinline__ float silu_gradient(float x) {
  const float s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

/// log(1 + e^x), without overflow.
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(__expf(-fabsf(x))); }

// ---- sums in a fixed order ----

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(kFullMask, x, step);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(kFullMask, x, step));
  return x;
}

/// The sum over a one-dimensional block of whole warps, for all of its threads. `scratch` holds 32 floats.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  x = warp_sum(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

/// The greatest over a one-dimensional block of whole warps, for all of its threads. `scratch` holds 32 floats.
__device__ __forceinline__ float block_max(float x, float* scratch) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  x = warp_max(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warp_max(lane < warps ? scratch[lane] : -INFINITY);
}
