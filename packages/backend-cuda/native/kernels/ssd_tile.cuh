// Layer: CUDA kernels. Tiles of the Mamba-2 scan in shared memory, and products of them on the tensor cores: fragments of
// m16n8k16 for bf16 and f16, and the same shape for f32 from three TF32 products each. Knows no scan.
#pragma once

#include "copies.cuh"
#include "half_products.cuh"

struct FloatA { float at[8]; };
struct FloatB { float at[4]; };

template <typename T>
struct Fragments {
  typedef HalfA A;
  typedef HalfB B;
};
template <>
struct Fragments<f32> {
  typedef FloatA A;
  typedef FloatB B;
};

template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<bf16>(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&v);
}
template <>
__device__ __forceinline__ uint32_t pack<f16>(float low, float high) {
  const __half2 v = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&v);
}

template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t v);
template <>
__device__ __forceinline__ float2 unpack<bf16>(uint32_t v) {
  return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
template <>
__device__ __forceinline__ float2 unpack<f16>(uint32_t v) {
  return __half22float2(*reinterpret_cast<const __half2*>(&v));
}

/// Two neighbours of a row, the first at an even column of a tile.
template <typename T>
__device__ __forceinline__ float2 load_pair(const T* from) {
  return unpack<T>(*reinterpret_cast<const uint32_t*>(from));
}
template <>
__device__ __forceinline__ float2 load_pair<f32>(const f32* from) {
  return *reinterpret_cast<const float2*>(from);
}
template <typename T>
__device__ __forceinline__ void store_pair(T* to, float low, float high) {
  *reinterpret_cast<uint32_t*>(to) = pack<T>(low, high);
}
template <>
__device__ __forceinline__ void store_pair<f32>(f32* to, float low, float high) {
  *reinterpret_cast<float2*>(to) = make_float2(low, high);
}

// ---- from shared memory ----

__device__ __forceinline__ void load_a(FloatA& a, const f32* tile, int wide) {
  const f32* at = tile + threadIdx.x % 32 / 4 * wide + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 v = *reinterpret_cast<const float2*>(at + i % 2 * 8 * wide + i / 2 * 8);
    a.at[2 * i] = v.x;
    a.at[2 * i + 1] = v.y;
  }
}
__device__ __forceinline__ void load_a_transposed(FloatA& a, const f32* tile, int wide) {
  const f32* at = tile + threadIdx.x % 4 * 2 * wide + threadIdx.x % 32 / 4;
#pragma unroll
  for (int i = 0; i < 8; i++) a.at[i] = at[(i % 2 + i / 4 * 8) * wide + i / 2 % 2 * 8];
}
__device__ __forceinline__ void load_b(FloatB (&b)[2], const f32* tile, int wide) {
  const f32* at = tile + threadIdx.x % 32 / 4 * wide + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 v = *reinterpret_cast<const float2*>(at + i / 2 * 8 * wide + i % 2 * 8);
    b[i / 2].at[i % 2 * 2] = v.x;
    b[i / 2].at[i % 2 * 2 + 1] = v.y;
  }
}
__device__ __forceinline__ void load_b_transposed(FloatB (&b)[2], const f32* tile, int wide) {
  const f32* at = tile + threadIdx.x % 4 * 2 * wide + threadIdx.x % 32 / 4;
#pragma unroll
  for (int i = 0; i < 8; i++) b[i / 4].at[i % 4] = at[(i % 2 + i / 2 % 2 * 8) * wide + i / 4 * 8];
}

// ---- factors ----

template <typename T>
__device__ __forceinline__ uint32_t scale_pair(uint32_t v, float low, float high) {
  const float2 x = unpack<T>(v);
  return pack<T>(x.x * low, x.y * high);
}

/// Multiplies the rows `row` and `row + 8` of A.
template <typename T>
__device__ __forceinline__ void scale_rows(HalfA& a, float low, float high) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float f = i % 2 ? high : low;
    a.at[i] = scale_pair<T>(a.at[i], f, f);
  }
}
template <typename T>
__device__ __forceinline__ void scale_rows(FloatA& a, float low, float high) {
#pragma unroll
  for (int i = 0; i < 8; i++) a.at[i] *= i / 2 % 2 ? high : low;
}
/// Multiplies A along k; `factors` are 16 floats in shared memory.
template <typename T>
__device__ __forceinline__ void scale_inner(HalfA& a, const float* factors) {
  const float2 low = *reinterpret_cast<const float2*>(factors + threadIdx.x % 4 * 2);
  const float2 high = *reinterpret_cast<const float2*>(factors + threadIdx.x % 4 * 2 + 8);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 f = i < 2 ? low : high;
    a.at[i] = scale_pair<T>(a.at[i], f.x, f.y);
  }
}
template <typename T>
__device__ __forceinline__ void scale_inner(FloatA& a, const float* factors) {
  const float2 low = *reinterpret_cast<const float2*>(factors + threadIdx.x % 4 * 2);
  const float2 high = *reinterpret_cast<const float2*>(factors + threadIdx.x % 4 * 2 + 8);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const float2 f = i < 4 ? low : high;
    a.at[i] *= i % 2 ? f.y : f.x;
  }
}

// ---- products ----

/// A 16 x 8 product over 8 in TF32. The tensor cores cut a float's last 13 bits off.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

/// The part of a float that TF32 keeps; the difference to it is exact.
__device__ __forceinline__ float tf32_part(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

/// f32 from TF32: with x = x1 + x2, the products x1 y1 + x1 y2 + x2 y1 leave out 2^-21 of x y.
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[4], const FloatA& a, const FloatB& b) {
#pragma unroll
  for (int s = 0; s < 2; s++) {
    float a1[4], a2[4], b1[2], b2[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float x = a.at[4 * s + i % 2 * 2 + i / 2];
      a1[i] = tf32_part(x);
      a2[i] = x - a1[i];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      b1[i] = tf32_part(b.at[2 * s + i]);
      b2[i] = b.at[2 * s + i] - b1[i];
    }
    multiply_tf32(c, a2, b1);
    multiply_tf32(c, a1, b2);
    multiply_tf32(c, a1, b1);
  }
}

// ---- from global to shared memory ----


/// Copies `rows` x `columns` elements into a tile of Rows x Columns, the rest of it being 0. With `aligned`, all rows begin at
/// multiples of 16 bytes and the copies are enqueued. A thread always has the same column.
template <int Rows, int Columns, int Threads, typename T>
__device__ __forceinline__ void load_tile(T* tile, const T* from, int pitch, int rows, int columns, bool aligned) {
  constexpr int size = kVector<T>, vectors = Columns / size, wide = Columns + 8, step = Threads / vectors;
  static_assert(Threads % vectors == 0 && Rows % step == 0, "whole rounds");
  const int row = threadIdx.x / vectors, column = threadIdx.x % vectors * size;
  T* const to = tile + row * wide + column;
  const int count = min(max(columns - column, 0), size);
  const T* at = from + (row * pitch + column);
  if (aligned) {
#pragma unroll
    for (int i = 0; i < Rows / step; i++) {
      copy_16(to + i * step * wide, at, row + i * step < rows ? count * static_cast<int>(sizeof(T)) : 0);
      at += step * pitch;
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < Rows / step; i++) {
      const int have = row + i * step < rows ? count : 0;
#pragma unroll 1
      for (int k = 0; k < size; k++) to[i * step * wide + k] = k < have ? at[k] : from_float<T>(0.0f);
      at += step * pitch;
    }
  }
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
