// The products of the Mamba-2 scan by tiles of registers: what a tile sums goes through a whole chunk of tokens in them, with a
// decay between the parts. Matrices on the right lie in panels of a tile's columns, rows one after another.
// Knows registers and panels. Knows no recurrence.
#pragma once

#include <algorithm>

#include "lanes.h"
#include "matmul_pack.h"
#include "matmul_tile.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace ssd {

/// Columns of a panel.
constexpr int64_t kPanel = kTileColumns;

inline int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }
/// Columns as panels have them.
inline int64_t whole_panels(int64_t columns) { return panels_of(columns) * kPanel; }
inline int64_t panel_columns(int64_t columns, int64_t panel) { return std::min(kPanel, columns - panel * kPanel); }

/// sums <- scale sums + left right: `depth` columns of some rows times as many rows of a panel.
struct Term {
  const float *left, *right;
  /// Elements between two rows of the left factor; of a transposed one, between two columns.
  int64_t pitch, depth;
  float scale;
};

/// A left factor whose rows are contiguous, and one whose columns are.
enum class Lies { by_rows, by_columns };

struct TransposedRows {
  static constexpr int64_t row = 1;
  int64_t column;
};

template <Lies lies>
auto left_of(int64_t pitch) {
  if constexpr (lies == Lies::by_rows) {
    return DirectRows{pitch};
  } else {
    return TransposedRows{pitch};
  }
}

/// Every sum of a tile, row by row: gcc keeps them in registers only where no loop goes over them.
template <int Rows, int Vectors, typename Body, int... I>
[[gnu::always_inline]] inline void each_sum(TileSums<Rows, Vectors>& sums, const Body& body, std::integer_sequence<int, I...>) {
  (body(sums[I / Vectors][I % Vectors], I / Vectors * kPanel + I % Vectors * kLanes), ...);
}

/// A tile of a panel: `initial` and all terms, in order, to `out`; both are rows of a panel. Without `initial` sums begin at 0.
template <int Rows, int Vectors, Lies lies>
[[gnu::noinline]] void sum_terms(const Term* term, int64_t count, const float* initial, float* out) {
  constexpr auto all = std::make_integer_sequence<int, Rows * Vectors>();
  TileSums<Rows, Vectors> sums = {};
  if (initial != nullptr) {
    each_sum<Rows, Vectors>(sums, [&](Vec& sum, int64_t at) ALWAYS_INLINE { sum = load(initial + at); }, all);
  }
  for (const Term* const end = term + count; term != end; term++) {
    const Vec scale = splat(term->scale);
    if (term->scale != 1) each_sum<Rows, Vectors>(sums, [&](Vec& sum, int64_t) ALWAYS_INLINE { sum *= scale; }, all);
    const auto left = left_of<lies>(term->pitch);
    const float* a = term->left;
    const float* low = a + Rows / 2 * left.row;
    const float* b = term->right;
    int64_t k = term->depth;
    for (; k >= kSteps; k -= kSteps) {
      steps<Rows, Vectors>(sums, left, a, low, b, kPanel, std::make_integer_sequence<int, kSteps>());
      a += kSteps * left.column;
      low += kSteps * left.column;
    }
    for (; k > 0; k--) {
      steps<Rows, Vectors>(sums, left, a, low, b, kPanel, std::make_integer_sequence<int, 1>());
      a += left.column;
      low += left.column;
    }
  }
  each_sum<Rows, Vectors>(sums, [&](Vec& sum, int64_t at) ALWAYS_INLINE { store(out + at, sum); }, all);
}

/// The same for as many rows (up to kTileRows) and columns as there are; further ones of the last vector are summed with them.
template <Lies lies, int... I>
void sum_terms_of(int64_t rows, int64_t columns, const Term* terms, int64_t count, const float* initial, float* out,
                  std::integer_sequence<int, I...>) {
  constexpr decltype(&sum_terms<1, 1, lies>) tiles[2][kTileRows] = {{sum_terms<I + 1, 1, lies>...},
                                                                    {sum_terms<I + 1, 2, lies>...}};
  tiles[columns > kLanes][rows - 1](terms, count, initial, out);
}

template <Lies lies>
void sum_terms(int64_t rows, int64_t columns, const Term* terms, int64_t count, const float* initial, float* out) {
  sum_terms_of<lies>(rows, columns, terms, count, initial, out, std::make_integer_sequence<int, kTileRows>());
}

/// Calls body(first, rows) for the rows begin .. end in strips of nearly the same height.
template <typename Body>
inline ALWAYS_INLINE void each_strip(int64_t begin, int64_t end, const Body& body) {
  const int64_t strips = (end - begin + kTileRows - 1) / kTileRows;
  for (int64_t strip = 0; strip < strips; strip++) {
    const int64_t first = begin + strip * (end - begin) / strips;
    body(first, begin + (strip + 1) * (end - begin) / strips - first);
  }
}

/// A tile on its way from registers to where it goes.
struct Tile {
  alignas(64) float at[kTileRows * kPanel];

  Vec vector(int64_t row, int64_t column) const { return load(at + row * kPanel + column); }
};

/// Calls body(lanes, column) for each vector of a panel with so many columns.
template <typename Body>
inline ALWAYS_INLINE void each_column(int64_t columns, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) body(Whole{}, c);
  if (c < columns) body(Part{columns - c}, c);
}

/// v up to a lane, and zeros after it.
inline Vec up_to(Vec v, int64_t last) {
  VecInt lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  return select(lane <= static_cast<int32_t>(last), v, Vec{});
}

/// Panels of rows times a factor each, with zeros after the last column: row i of panel c at (c * rows + i) * kPanel.
inline void pack_scaled(const float* from, int64_t pitch, int64_t rows, int64_t columns, const float* factors, float* to) {
  for (int64_t panel = 0; panel < panels_of(columns); panel++) {
    const int64_t width = panel_columns(columns, panel);
    for (int64_t i = 0; i < rows; i++, to += kPanel) {
      const float* const row = from + i * pitch + panel * kPanel;
      const Vec factor = splat(factors[i]);
      if (width == kPanel) {
        for (int64_t c = 0; c < kPanel; c += kLanes) store(to + c, load(row + c) * factor);
        continue;
      }
      for (int64_t c = 0; c < kPanel; c += kLanes) store(to + c, Vec{});
      each_column(width, [&](auto lanes, int64_t c) { lanes.store(to + c, lanes.load(row + c) * factor); });
    }
  }
}

/// Panels of the transpose of a matrix that lies by rows: (rows x columns) becomes panels of (columns x rows).
inline void pack_transpose(const float* from, int64_t pitch, int64_t rows, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; i += kPanel, to += columns * kPanel) {
    pack_transposed<kPanel>(from + i * pitch, pitch, columns, std::min(kPanel, rows - i), to);
  }
}

/// Panels of (columns x rows) from those of (rows x columns).
inline void transpose_panels(const float* from, int64_t rows, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; i += kPanel) {
    for (int64_t c = 0; c < columns; c += kPanel) {
      pack_transposed<kPanel>(from + c * rows + i * kPanel, kPanel, std::min(kPanel, columns - c), std::min(kPanel, rows - i),
                              to + i * columns + c * kPanel);
    }
  }
}

/// to (columns x rows), by rows, from panels of (rows x columns).
inline void unpack_transpose(const float* from, int64_t rows, int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; c += kPanel, from += rows * kPanel) {
    const int64_t width = std::min(kPanel, columns - c), quads = width / 4 * 4;
    float* const rows_of_panel = to + c * rows;
    int64_t i = 0;
    for (; i + kLanes <= rows; i += kLanes) {
      for (int64_t p = 0; p < quads; p += 4) transpose_rows(from + i * kPanel + p, kPanel, rows_of_panel + p * rows + i, rows);
      for (int64_t p = quads; p < width; p++) {
        for (int64_t k = i; k < i + kLanes; k++) rows_of_panel[p * rows + k] = from[k * kPanel + p];
      }
    }
    for (; i < rows; i++) {
      for (int64_t p = 0; p < width; p++) rows_of_panel[p * rows + i] = from[i * kPanel + p];
    }
  }
}

/// to[i] += the sum of row i's lanes, rows of one vector each.
inline void add_lane_sums(const float* vectors, int64_t rows, double* to) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const float* const at = vectors + i * kLanes;
    const Vec four[] = {load(at), load(at + kLanes), load(at + 2 * kLanes), load(at + 3 * kLanes)};
    float sums[4];
    sum_lanes(four, sums);
    for (int k = 0; k < 4; k++) to[i + k] += sums[k];
  }
  for (; i < rows; i++) to[i] += sum(load(vectors + i * kLanes));
}

inline void clear(float* to, int64_t n) { memset(to, 0, static_cast<size_t>(n) * sizeof(float)); }

/// The sum of the products of two rows.
inline float dot(const float* a, const float* b, int64_t n) {
  Chains total(0);
  each_vector(n, [&](auto lanes, int64_t i, int chain) { total[chain] += lanes.load(a + i) * lanes.load(b + i); });
  return total.sum();
}

}  // namespace ssd
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
