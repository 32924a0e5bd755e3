// Packing: blocks of the factors copied as f32 into the order in which tiles read them, so that they come from near
// caches, a line after another.
// Knows layouts of one matrix. Knows no product and no threads.
#pragma once

#include "matmul_element.h"
#include "matmul_quad.h"
#include "matmul_tile.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Panels that are filled at the same time: as many lines as the first-level cache has room for in one place, since panels
/// often begin a multiple of its size apart.
constexpr int64_t kPanelsAtOnce = 8;
/// Rows that are fetched ahead of where packing is: they are too far apart for the machine to see a pattern.
constexpr int64_t kRowsAhead = 16;
constexpr int64_t kFloatsAhead = 64;
/// Floats of a cache line: so many of a row are used up before the next rows, which may lie in the same place of the cache.
constexpr int64_t kLineFloats = 16;

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
template <int Width, typename T>
void pack_transposed(const T* from, int64_t pitch, int64_t depth, int64_t columns, float* to) {
  static_assert(Width % kLanes == 0, "panels are vectors wide");
  const int64_t whole = columns / kLanes * kLanes;
  int64_t k = 0;
  while (k + 4 <= depth) {
    const int64_t end = k + kLineFloats <= depth ? k + kLineFloats : k + 4;
    for (int64_t j = 0; j < whole; j += kLanes) {
      for (int64_t i = k; i < end; i += 4) transpose_rows(from + j * pitch + i, pitch, to + i * Width + j, Width);
      for (int64_t i = j; i < j + kLanes; i++) __builtin_prefetch(from + i * pitch + k + kFloatsAhead);
    }
    for (; k < end; k++) {
      for (int64_t j = whole; j < Width; j++) to[k * Width + j] = j < columns ? float(from[j * pitch + k]) : 0;
    }
  }
  for (; k < depth; k++) {
    for (int64_t j = 0; j < Width; j++) to[k * Width + j] = j < columns ? float(from[j * pitch + k]) : 0;
  }
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
