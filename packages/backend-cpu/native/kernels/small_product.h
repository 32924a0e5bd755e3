// Matrix products of the sizes of a chunk (tens to a few hundreds), on memory that is in the cache: no packing, a tile of
// registers, any strides on the left.
// Knows floats. Knows no kernel.
#pragma once

#include "../simd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// A matrix read element by element: its transpose is the same with the strides exchanged.
struct Left {
  const float* data;
  int64_t row, column;
};

/// A matrix read by rows.
struct Right {
  const float* data;
  int64_t pitch;
};

/// Which depths a row of the left has anything at: all; up to its own index (lower triangle); or from it on (upper).
enum class Shape { full, lower, upper };

namespace small_product {

constexpr int kRows = 6;

/// Rows x (2 vectors) of C += A B over depths [from, to). `part` lanes of the last vector exist; 0 for all of both.
template <int Rows, int Vectors>
inline void tile(Left a, Right b, float* c, int64_t pitch, int64_t from, int64_t to, int64_t columns) {
  Vec sums[Rows][Vectors];
  const int64_t last = columns - (Vectors - 1) * kLanes;
  const bool whole = last >= kLanes;
  for (int i = 0; i < Rows; i++) {
    for (int v = 0; v < Vectors - 1; v++) sums[i][v] = load(c + i * pitch + v * kLanes);
    float* const end = c + i * pitch + (Vectors - 1) * kLanes;
    sums[i][Vectors - 1] = whole ? load(end) : load_part(end, last);
  }
  for (int64_t k = from; k < to; k++) {
    const float* const row = b.data + k * b.pitch;
    Vec right[Vectors];
    for (int v = 0; v < Vectors - 1; v++) right[v] = load(row + v * kLanes);
    right[Vectors - 1] = whole ? load(row + (Vectors - 1) * kLanes) : load_part(row + (Vectors - 1) * kLanes, last);
    for (int i = 0; i < Rows; i++) {
      const Vec left = splat(a.data[i * a.row + k * a.column]);
      for (int v = 0; v < Vectors; v++) sums[i][v] += left * right[v];
    }
  }
  for (int i = 0; i < Rows; i++) {
    for (int v = 0; v < Vectors - 1; v++) store(c + i * pitch + v * kLanes, sums[i][v]);
    float* const end = c + i * pitch + (Vectors - 1) * kLanes;
    if (whole) {
      store(end, sums[i][Vectors - 1]);
    } else {
      store_part(end, sums[i][Vectors - 1], last);
    }
  }
}

template <int Rows>
inline void strip(Left a, Right b, float* c, int64_t pitch, int64_t from, int64_t to, int64_t columns) {
  int64_t j = 0;
  for (; j + kLanes < columns; j += 2 * kLanes) {
    tile<Rows, 2>(a, {b.data + j, b.pitch}, c + j, pitch, from, to, columns - j < 2 * kLanes ? columns - j : 2 * kLanes);
  }
  if (j < columns) tile<Rows, 1>(a, {b.data + j, b.pitch}, c + j, pitch, from, to, columns - j);
}

}  // namespace small_product

/// C (rows x columns) += A (rows x depth) B (depth x columns). Where the shape says that A is 0, it is not read for whole
/// strips of rows; inside a strip it must hold zeros.
inline void add_product(Shape shape, int64_t rows, int64_t columns, int64_t depth, Left a, Right b, float* c,
                        int64_t pitch) {
  using namespace small_product;
  int64_t i = 0;
  const auto at = [&](int64_t count) {
    const int64_t from = shape == Shape::upper ? i : 0;
    const int64_t to = shape == Shape::lower && i + count < depth ? i + count : depth;
    const Left rows_of_a{a.data + i * a.row, a.row, a.column};
    float* const rows_of_c = c + i * pitch;
    switch (count) {
      case kRows:
        return strip<kRows>(rows_of_a, b, rows_of_c, pitch, from, to, columns);
      case 4:
        return strip<4>(rows_of_a, b, rows_of_c, pitch, from, to, columns);
      default:
        return strip<1>(rows_of_a, b, rows_of_c, pitch, from, to, columns);
    }
  };
  for (; i + kRows <= rows; i += kRows) at(kRows);
  for (; i + 4 <= rows; i += 4) at(4);
  for (; i < rows; i++) at(1);
}

/// to (columns x rows) = the transpose of from (rows x columns).
inline void transpose(const float* from, int64_t pitch, int64_t rows, int64_t columns, float* to, int64_t to_pitch) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) to[j * to_pitch + i] = from[i * pitch + j];
  }
}

inline void clear(float* to, int64_t n) { memset(to, 0, static_cast<size_t>(n) * sizeof(float)); }

/// The sum of the products of two rows.
inline float dot(const float* a, const float* b, int64_t n) {
  Vec total{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total += load(a + i) * load(b + i);
  if (i < n) total += load_part(a + i, n - i) * load_part(b + i, n - i);
  return sum(total);
}

/// to = from * factor, to += from * factor.
inline void scale_row(float* to, const float* from, float factor, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = from[i] * factor;
}
inline void add_scaled_row(float* to, const float* from, float factor, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += from[i] * factor;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
