// Vectors of floats by compiler extensions: one source for every instruction set. The width follows the set that the file
// is compiled for; every operation is elementwise and in a fixed order.
// Knows floats. Knows no kernel.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#ifndef DIFFMAMBA_ISA
#error "kernel sources are compiled with -DDIFFMAMBA_ISA=<namespace>"
#endif

namespace diffmamba {
namespace DIFFMAMBA_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t VecInt __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vec load(const float* from) {
  Vec v;
  memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vec v) { memcpy(to, &v, sizeof v); }

inline Vec splat(float x) { return x - Vec{}; }

/// The first n lanes; the others are 0. Reads no memory past them.
inline Vec load_part(const float* from, int64_t n) {
  Vec v{};
  memcpy(&v, from, static_cast<size_t>(n) * sizeof(float));
  return v;
}

inline void store_part(float* to, Vec v, int64_t n) { memcpy(to, &v, static_cast<size_t>(n) * sizeof(float)); }

/// Lanes added pairwise, as a tree.
inline float sum(Vec v) {
  float lanes[kLanes];
  memcpy(lanes, &v, sizeof lanes);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

inline Vec select(VecInt mask, Vec yes, Vec no) { return mask ? yes : no; }
/// The second one where either is NaN. gcc makes a comparison and a blend of the general form, which machines do in one step.
#if defined(__AVX2__) && !defined(__AVX512F__)
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
#else
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
#endif

/// x = n ln 2 + r, |r| <= ln 2 / 2: n, kept in the lowest bits of `shifted`, and e^r - 1 by a polynomial.
struct ExpParts {
  Vec shifted, n, q;

  explicit ExpParts(Vec x) {
    const Vec shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    shifted = x * splat(1.44269504f) + shifter;
    n = shifted - shifter;
    const Vec r = (x - n * splat(0.693145752f)) - n * splat(1.42860677e-6f);
    // In pairs, because what limits it is how long each waits for the last. e^r - 1 = r + r^2 p.
    const Vec r2 = r * r;
    const Vec low = r * splat(1.66666657e-1f) + splat(5.00000001e-1f);
    const Vec middle = r * splat(8.33345190e-3f) + splat(4.16657962e-2f);
    const Vec high = r * splat(1.98756915e-4f) + splat(1.39819995e-3f);
    const Vec p = (high * r2 + middle) * r2 + low;
    q = p * r2 + r;
  }
};

/// e^x to about one unit in the last place: x = n ln 2 + r, a polynomial on r, and n added to the exponent.
/// Below -104 it is 0, above 88.73 infinity; NaN stays NaN.
inline Vec exp(Vec x) {
  // In this order of operands NaN stays NaN, and reaches the result by itself.
  const ExpParts parts(min(splat(89.0f), max(splat(-104.0f), x)));
  // 2^n in two factors, so that results below the normal range and just above the largest power come out right.
  const VecInt whole = __builtin_convertvector(parts.n, VecInt);
  const VecInt half = whole >> 1;
  const VecInt first = (half + 127) << 23;
  const VecInt second = (whole - half + 127) << 23;
  Vec a, b;
  memcpy(&a, &first, sizeof a);
  memcpy(&b, &second, sizeof b);
  return (parts.q * a + a) * b;
}

/// e^x in fewer steps, for x from -87 to 88; beyond, that of the nearest of these. NaN stays NaN.
inline Vec bounded_exp(Vec x) {
  const ExpParts parts(min(splat(88.0f), max(splat(-87.0f), x)));
  Vec result = parts.q + splat(1.0f);
  VecInt whole, bits;
  memcpy(&whole, &parts.shifted, sizeof whole);
  memcpy(&bits, &result, sizeof bits);
  bits += whole << 23;
  memcpy(&result, &bits, sizeof result);
  return result;
}

/// 2^x for x from -126 to 127, in fewer steps than exp takes: to two units in the last place, and 2^0 = 1.
inline Vec exp2_within(Vec x) {
  const Vec shifter = splat(12582912.0f);
  const Vec shifted = x + shifter;
  const Vec r = x - (shifted - shifter);
  Vec p = r * splat(1.32647273e-3f) + splat(9.67151299e-3f);
  p = p * r + splat(5.55073358e-2f);
  p = p * r + splat(2.40222424e-1f);
  p = p * r + splat(6.93147004e-1f);
  p = p * r + splat(1.0f);
  // The whole number is in the lowest bits of what was shifted.
  VecInt whole, bits;
  memcpy(&whole, &shifted, sizeof whole);
  memcpy(&bits, &p, sizeof bits);
  bits += whole << 23;
  memcpy(&p, &bits, sizeof p);
  return p;
}

/// 2^x: results below the normal range are 0 or nearly so. NaN stays NaN.
inline Vec exp2(Vec x) { return exp2_within(min(splat(128.0f), max(splat(-127.0f), x))); }

/// log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|; and its slope, sigmoid(x).
struct SoftplusAndSlope {
  Vec value, slope;

  explicit SoftplusAndSlope(Vec x) {
    const Vec e = exp2_within(max(splat(-126.0f), min(x, -x) * splat(1.44269504f)));
    // log(1 + e) = 2 artanh(e / (2 + e))
    const Vec s = e / (e + splat(2.0f)), q = s * s;
    const Vec low = q * splat(3.33380014e-1f) + splat(9.99999821e-1f);
    const Vec high = q * splat(1.71130255e-1f) + splat(1.97947308e-1f);
    value = max(x, Vec{}) + (s + s) * (high * (q * q) + low);
    slope = select(x < Vec{}, e, splat(1.0f)) / (e + splat(1.0f));
  }
};

inline Vec softplus(Vec x) { return SoftplusAndSlope(x).value; }

inline Vec reciprocal(Vec x) { return splat(1.0f) / x; }
inline Vec sigmoid(Vec x) { return reciprocal(splat(1.0f) + bounded_exp(-x)); }
/// Below -87, where sigmoid(x) stays what it is, it must not grow with x.
inline Vec silu(Vec x) { return max(splat(-88.0f), x) * sigmoid(x); }

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
