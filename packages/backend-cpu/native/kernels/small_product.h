// Matrix products of the sizes of a chunk (tens to a few hundreds), on memory that is in the cache: no packing, a tile of
// registers, any strides on the left.
// Knows floats. Knows no kernel.
#pragma once

#include "lanes.h"
#include "matmul_quad.h"

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

/// What there is of the left matrix in a row: all of it; nothing after the row's own index, or nothing before it. Or which
/// part of the result is wanted: up to the row's own index, and a little more.
enum class Shape { full, lower, upper, lower_result };

namespace small_product {

constexpr int kRows = 6;

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

/// Depths [from, to) of a product, and whether its result is added to what is there.
struct Depths {
  int64_t from, to;
  bool add;
};

/// A tile of a result: rows x (whole vectors), of whose last `last` lanes exist.
template <int Rows, int Vectors, typename Lanes>
inline void tile(Left a, Right b, float* c, int64_t pitch, Depths depths, Lanes lanes) {
  constexpr int kEnd = (Vectors - 1) * kLanes;
  Vec sums[Rows][Vectors] = {};
  for (int i = 0; depths.add && i < Rows; i++) {
    for (int v = 0; v < Vectors - 1; v++) sums[i][v] = load(c + i * pitch + v * kLanes);
    sums[i][Vectors - 1] = lanes.load(c + i * pitch + kEnd);
  }
  const float* left = a.data + depths.from * a.column;
  const float* row = b.data + depths.from * b.pitch;
  for (int64_t k = depths.from; k < depths.to; k++, left += a.column, row += b.pitch) {
    Vec right[Vectors];
    for (int v = 0; v < Vectors - 1; v++) right[v] = load(row + v * kLanes);
    right[Vectors - 1] = lanes.load(row + kEnd);
    for (int i = 0; i < Rows; i++) {
      const Vec factor = splat(left[i * a.row]);
      for (int v = 0; v < Vectors; v++) sums[i][v] += factor * right[v];
    }
  }
  for (int i = 0; i < Rows; i++) {
    for (int v = 0; v < Vectors - 1; v++) store(c + i * pitch + v * kLanes, sums[i][v]);
    lanes.store(c + i * pitch + kEnd, sums[i][Vectors - 1]);
  }
}

template <int Rows>
inline void strip(Left a, Right b, float* c, int64_t pitch, Depths depths, int64_t columns) {
  int64_t j = 0;
  const auto right = [&] { return Right{b.data + j, b.pitch}; };
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) tile<Rows, 2>(a, right(), c + j, pitch, depths, Whole{});
  for (; j + kLanes <= columns; j += kLanes) tile<Rows, 1>(a, right(), c + j, pitch, depths, Whole{});
  if (j < columns) tile<Rows, 1>(a, right(), c + j, pitch, depths, Part{columns - j});
}

inline void product(Shape shape, int64_t rows, int64_t columns, int64_t depth, Left a, Right b, float* c, int64_t pitch,
                    bool add) {
  int64_t i = 0;
  const auto at = [&](int64_t count) {
    const int64_t reach = i + count;
    const Depths depths{shape == Shape::upper ? i : 0, shape == Shape::lower && reach < depth ? reach : depth, add};
    const int64_t wanted = shape == Shape::lower_result && padded(reach) < columns ? padded(reach) : columns;
    const Left rows_of_a{a.data + i * a.row, a.row, a.column};
    float* const rows_of_c = c + i * pitch;
    switch (count) {
      case kRows:
        return strip<kRows>(rows_of_a, b, rows_of_c, pitch, depths, wanted);
      case 4:
        return strip<4>(rows_of_a, b, rows_of_c, pitch, depths, wanted);
      default:
        return strip<1>(rows_of_a, b, rows_of_c, pitch, depths, wanted);
    }
  };
  for (; i + kRows <= rows; i += kRows) at(kRows);
  for (; i + 4 <= rows; i += 4) at(4);
  for (; i < rows; i++) at(1);
}

}  // namespace small_product

/// C (rows x columns) = A (rows x depth) B (depth x columns). Where the shape says that A is 0, it is not read for whole
/// strips of rows; inside a strip, which is up to kRows high, it must hold zeros.
inline void set_product(Shape shape, int64_t rows, int64_t columns, int64_t depth, Left a, Right b, float* c,
                        int64_t pitch) {
  small_product::product(shape, rows, columns, depth, a, b, c, pitch, false);
}

/// The same, added to C.
inline void add_product(Shape shape, int64_t rows, int64_t columns, int64_t depth, Left a, Right b, float* c,
                        int64_t pitch) {
  small_product::product(shape, rows, columns, depth, a, b, c, pitch, true);
}

/// to (columns x rows) = the transpose of from (rows x columns).
inline void transpose(const float* from, int64_t pitch, int64_t rows, int64_t columns, float* to, int64_t to_pitch) {
  const int64_t quad_rows = rows / 4 * 4, quad_columns = columns / 4 * 4;
  const auto rest = [&](int64_t row, int64_t end, int64_t column) {
    for (int64_t i = row; i < end; i++) {
      for (int64_t j = column; j < columns; j++) to[j * to_pitch + i] = from[i * pitch + j];
    }
  };
  for (int64_t i = 0; i < quad_rows; i += 4) {
    for (int64_t j = 0; j < quad_columns; j += 4) {
      transpose_quads(from + i * pitch + j, pitch, to + j * to_pitch + i, to_pitch);
    }
  }
  rest(0, quad_rows, quad_columns);
  rest(quad_rows, rows, 0);
}

inline void clear(float* to, int64_t n) { memset(to, 0, static_cast<size_t>(n) * sizeof(float)); }

/// The sum of the products of two rows.
inline float dot(const float* a, const float* b, int64_t n) {
  Chains total(0);
  each_vector(n, [&](auto lanes, int64_t i, int chain) { total[chain] += lanes.load(a + i) * lanes.load(b + i); });
  return total.sum();
}

/// to = from * factor, to += from * factor.
inline void scale_row(float* to, const float* from, float factor, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) { lanes.store(to + i, lanes.load(from + i) * splat(factor)); });
}
inline void add_scaled_row(float* to, const float* from, float factor, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) {
    lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i) * splat(factor));
  });
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
