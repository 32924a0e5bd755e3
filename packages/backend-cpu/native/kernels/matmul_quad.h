// Four floats at a time, whatever a vector's width: transposition, and sums of vectors' lanes.
// Knows lanes. Knows no matrix.
#pragma once

#include "../simd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

typedef float Quad __attribute__((vector_size(16)));

#if defined(__clang__)
#define DIFFMAMBA_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define DIFFMAMBA_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (QuadInt){i, j, k, l})
typedef int32_t QuadInt __attribute__((vector_size(16)));
#endif

inline Quad load_quad(const float* from) {
  Quad q;
  memcpy(&q, from, sizeof q);
  return q;
}

inline void store_quad(float* to, Quad q) { memcpy(to, &q, sizeof q); }

/// to[j * to_pitch + i] = from[i * pitch + j] for i, j < 4.
inline void transpose_quads(const float* from, int64_t pitch, float* to, int64_t to_pitch) {
  const Quad a = load_quad(from);
  const Quad b = load_quad(from + pitch);
  const Quad c = load_quad(from + 2 * pitch);
  const Quad d = load_quad(from + 3 * pitch);
  const Quad ab_low = DIFFMAMBA_SHUFFLE(a, b, 0, 4, 1, 5);
  const Quad ab_high = DIFFMAMBA_SHUFFLE(a, b, 2, 6, 3, 7);
  const Quad cd_low = DIFFMAMBA_SHUFFLE(c, d, 0, 4, 1, 5);
  const Quad cd_high = DIFFMAMBA_SHUFFLE(c, d, 2, 6, 3, 7);
  store_quad(to, DIFFMAMBA_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5));
  store_quad(to + to_pitch, DIFFMAMBA_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7));
  store_quad(to + 2 * to_pitch, DIFFMAMBA_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  store_quad(to + 3 * to_pitch, DIFFMAMBA_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
}

/// The sums of each vector's lanes, in one order: lanes four apart first.
inline Quad sum_lanes(Vec a, Vec b, Vec c, Vec d) {
  const Vec vectors[4] = {a, b, c, d};
  Quad q[4];
  for (int i = 0; i < 4; i++) {
    Quad parts[kLanes / 4];
    memcpy(parts, &vectors[i], sizeof parts);
    q[i] = parts[0];
    for (int part = 1; part < kLanes / 4; part++) q[i] += parts[part];
  }
  const Quad ab = DIFFMAMBA_SHUFFLE(q[0], q[1], 0, 4, 1, 5) + DIFFMAMBA_SHUFFLE(q[0], q[1], 2, 6, 3, 7);
  const Quad cd = DIFFMAMBA_SHUFFLE(q[2], q[3], 0, 4, 1, 5) + DIFFMAMBA_SHUFFLE(q[2], q[3], 2, 6, 3, 7);
  return DIFFMAMBA_SHUFFLE(ab, cd, 0, 1, 4, 5) + DIFFMAMBA_SHUFFLE(ab, cd, 2, 3, 6, 7);
}

#undef DIFFMAMBA_SHUFFLE

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
