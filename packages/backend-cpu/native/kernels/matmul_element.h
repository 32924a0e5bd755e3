// What the operands of a matrix product are stored as: f32, bf16 or f16, read as f32 and written back rounded to nearest
// even.
// Knows bit patterns. Knows no product.
#pragma once

#include <cstdint>
#include <cstring>

#include "../half.h"
#include "../simd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

typedef uint32_t VecWord __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint16_t VecHalf __attribute__((vector_size(kLanes * sizeof(uint16_t))));

inline Vec as_floats(VecWord w) {
  Vec v;
  memcpy(&v, &w, sizeof v);
  return v;
}

inline VecWord as_words(Vec v) {
  VecWord w;
  memcpy(&w, &v, sizeof w);
  return w;
}

/// The numbers that bit patterns stand for, in the low 16 bits of each word.
inline Vec widen_words(VecWord bits, const Bf16*) { return as_floats(bits << 16); }

inline Vec widen_words(VecWord bits, const F16*) {
  const VecWord magnitude = (bits & 0x7fff) << 13;
  // The exponent's bias grows by 112; by a product, so that subnormal numbers come out right.
  const VecWord scaled = as_words(as_floats(magnitude) * 0x1p112f);
  const VecWord infinite = magnitude >= 0x7c00u << 13;
  return as_floats(scaled | (infinite & 0x7f800000) | ((bits & 0x8000) << 16));
}

/// A vector of elements as f32.
inline Vec widened(const float* from) { return load(from); }

template <typename Half>
Vec widened(const Half* from) {
  VecHalf halves;
  memcpy(&halves, from, sizeof halves);
  return widen_words(__builtin_convertvector(halves, VecWord), from);
}

/// The nearest bit patterns, in the low 16 bits of each word.
inline VecWord narrow_words(Vec v, const Bf16*) {
  const VecWord bits = as_words(v);
  const VecWord rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const VecWord nan = (bits & 0x7fffffff) > 0x7f800000u;
  return (nan & ((bits >> 16) | 0x40)) | (~nan & rounded);
}

inline VecWord narrow_words(Vec v, const F16*) {
  const VecWord bits = as_words(v);
  const VecWord magnitude = bits & 0x7fffffff;
  const VecWord normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
  // Adding 0.5 leaves multiples of 2^-24, the unit of the subnormal numbers, in the low bits.
  const VecWord subnormal = as_words(as_floats(magnitude) + 0.5f) - 0x3f000000;
  const VecWord tiny = magnitude < 0x38800000u;
  const VecWord large = magnitude >= 0x477ff000u;
  const VecWord nan = magnitude > 0x7f800000u;
  const VecWord finite = (tiny & subnormal) | (~tiny & normal);
  return (large & (0x7c00 | (nan & 0x0200))) | (~large & finite) | ((bits >> 16) & 0x8000);
}

/// n elements as f32.
inline void widen(const float* from, float* to, int64_t n) { memcpy(to, from, static_cast<size_t>(n) * sizeof(float)); }

template <typename Half>
void widen(const Half* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = from[i];
}

/// Adds n sums to `to`, or stores them there.
inline void narrow(const float* from, float* to, int64_t n, bool add) {
  for (int64_t i = 0; i < n; i++) to[i] = add ? to[i] + from[i] : from[i];
}

template <typename Half>
void narrow(const float* from, Half* to, int64_t n, bool add) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    float old[kLanes];
    if (add) widen(to + i, old, kLanes);
    const VecWord bits = narrow_words(add ? load(old) + load(from + i) : load(from + i), to);
    const VecHalf halves = __builtin_convertvector(bits, VecHalf);
    memcpy(to + i, &halves, sizeof halves);
  }
  for (; i < n; i++) to[i] = Half::from(add ? to[i] + from[i] : from[i]);
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
