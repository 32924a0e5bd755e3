// Packing: blocks of the factors copied as f32 into the order in which tiles read them, so that they come from near
// caches, a line after another.
// Knows layouts of one matrix. Knows no product and no threads.
#pragma once

#include "matmul_element.h"
#include "matmul_tile.h"

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

#undef DIFFMAMBA_SHUFFLE

/// Panels that are filled at the same time: as many lines as the first-level cache has room for in one place, since panels
/// often begin a multiple of its size apart.
constexpr int64_t kPanelsAtOnce = 8;
/// Rows that are fetched ahead of where packing is: they are too far apart for the machine to see a pattern.
constexpr int64_t kRowsAhead = 16;

/// Panels of `Width` columns, one after another, each of `depth` rows: from[k * pitch + j] for j < columns, and zeros up
/// to a whole panel.
template <int Width, typename T>
void pack_columns(const T* from, int64_t pitch, int64_t depth, int64_t columns, float* to) {
  const int64_t whole = columns / Width;
  for (int64_t first = 0; first < whole; first += kPanelsAtOnce) {
    const int64_t last = first + kPanelsAtOnce < whole ? first + kPanelsAtOnce : whole;
    for (int64_t k = 0; k < depth; k++) {
      const T* const row = from + k * pitch;
      for (int64_t panel = first; panel < last; panel++) {
        __builtin_prefetch(row + kRowsAhead * pitch + panel * Width);
        widen(row + panel * Width, to + (panel * depth + k) * Width, Width);
      }
    }
  }
  from += whole * Width;
  to += whole * Width * depth;
  columns -= whole * Width;
  for (int64_t k = 0; columns > 0 && k < depth; k++) {
    widen(from + k * pitch, to + k * Width, columns);
    for (int64_t j = columns; j < Width; j++) to[k * Width + j] = 0;
  }
}

/// One panel of `Width` columns and `depth` rows: to[k * Width + j] = from[j * pitch + k] for j < columns, zeros beyond.
template <int Width>
void pack_transposed(const float* from, int64_t pitch, int64_t depth, int64_t columns, float* to) {
  static_assert(Width % 4 == 0, "panels are quads wide");
  int64_t k = 0;
  if (columns == Width) {
    for (; k + 4 <= depth; k += 4) {
      for (int64_t j = 0; j < Width; j += 4) transpose_quads(from + j * pitch + k, pitch, to + k * Width + j, Width);
    }
  }
  for (; k < depth; k++) {
    for (int64_t j = 0; j < Width; j++) to[k * Width + j] = j < columns ? from[j * pitch + k] : 0;
  }
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
