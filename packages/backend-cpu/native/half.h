// Conversion between f32 and the 16-bit floats, rounding to nearest even, as packages/tensor does it.
// Knows bit patterns.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace diffmamba {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

struct Bf16 {
  uint16_t bits;

  operator float() const { return float_of(static_cast<uint32_t>(bits) << 16); }

  static Bf16 from(float x) {
    const uint32_t b = bits_of(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((b >> 16) | 0x40)};
    return {static_cast<uint16_t>((b + 0x7fff + ((b >> 16) & 1)) >> 16)};
  }
};

struct F16 {
  uint16_t bits;

  operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1f;
    const uint32_t fraction = bits & 0x3ff;
    if (exponent == 0) {
      const float small = static_cast<float>(fraction) * 0x1p-24f;
      return sign ? -small : small;
    }
    if (exponent == 31) return float_of(sign | 0x7f800000u | (fraction << 13));
    return float_of(sign | ((exponent + 112) << 23) | (fraction << 13));
  }

  static F16 from(float x) {
    const uint32_t b = bits_of(x);
    const uint32_t sign = (b >> 16) & 0x8000;
    const uint32_t magnitude = b & 0x7fffffff;
    if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00)};
    if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00)};
    if (magnitude < 0x38800000u) {
      return {static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(float_of(magnitude) * 0x1p24f)))};
    }
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
  }
};

}  // namespace diffmamba
