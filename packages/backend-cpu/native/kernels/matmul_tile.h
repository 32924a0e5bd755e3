// The innermost part of a matrix product: one tile of the result, held in registers while the depth goes by
// (the micro-kernel of Goto and van de Geijn 2008, Van Zee and van de Geijn 2015).
// Knows registers. Knows no blocking and no threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "../simd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Rows of a tile: with two vectors a row, as many sums as leave registers for the factors.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif
/// Steps of the depth in one turn of the loop.
#if defined(__FMA__) || defined(__aarch64__)
constexpr int kSteps = 8;
#else
constexpr int kSteps = 1;
#endif
constexpr int kTileColumns = 2 * kLanes;

/// Where the rows of the left factor are: element (i, k) of a tile at i * row + k * column.
struct PackedRows {
  static constexpr int64_t row = 1;
  static constexpr int64_t column = kTileRows;
};
struct DirectRows {
  int64_t row;
  static constexpr int64_t column = 1;
};

/// Where a tile of the result goes, and how much of it is there.
struct TileOut {
  float* at;
  int64_t pitch;
  int64_t rows;
  int64_t columns;
  /// Add to what is there.
  bool add;
};

template <int Vectors>
using TileSums = Vec[kTileRows][Vectors];

/// sum += left * right, where the sum is: gcc, left free, moves sums about until it runs out of registers.
[[gnu::always_inline]] inline void add_product(Vec& sum, Vec left, Vec right) {
#if defined(__FMA__)
  asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
#else
  sum += left * right;
#endif
}

/// One step of the depth: a column of the left factor times a row of the right one. `low` is the column's second half.
template <int Vectors, typename Rows, int... I>
[[gnu::always_inline]] inline void step(TileSums<Vectors>& sums, const Rows& rows, const float* a, const float* low,
                                        const float* b, std::integer_sequence<int, I...>) {
  Vec right[Vectors];
  for (int v = 0; v < Vectors; v++) right[v] = load(b + v * kLanes);
  const auto row = [&](int i, Vec (&sum)[Vectors]) __attribute__((always_inline)) {
    const Vec left = splat(i < kTileRows / 2 ? a[i * rows.row] : low[(i - kTileRows / 2) * rows.row]);
    for (int v = 0; v < Vectors; v++) add_product(sum[v], left, right[v]);
  };
  (row(I, sums[I]), ...);
}

/// Several steps. Moves b on.
template <int Vectors, typename Rows, int... K>
[[gnu::always_inline]] inline void steps(TileSums<Vectors>& sums, const Rows& rows, const float* a, const float* low,
                                         const float*& b, int64_t pitch, std::integer_sequence<int, K...>) {
  constexpr auto all = std::make_integer_sequence<int, kTileRows>();
  ((step<Vectors>(sums, rows, a + K * rows.column, low + K * rows.column, b, all), b += pitch), ...);
}

/// All of a tile's sums.
template <int Vectors, int... I>
[[gnu::always_inline]] inline void store_tile(const TileSums<Vectors>& sums, const TileOut& out,
                                              std::integer_sequence<int, I...>) {
  const auto row = [&](float* to, const Vec(&sum)[Vectors]) __attribute__((always_inline)) {
    for (int v = 0; v < Vectors; v++, to += kLanes) store(to, out.add ? sum[v] + load(to) : sum[v]);
  };
  (row(out.at + I * out.pitch, sums[I]), ...);
}

/// The tile's sums over `depth`, added to `out` or stored there. The rows of b are `pitch` apart; it is read in whole
/// vectors. The left factor has all of the tile's rows, also where `out` has fewer.
template <int Vectors, typename Rows>
[[gnu::noinline]] void tile(int64_t depth, Rows rows, const float* a, const float* b, int64_t pitch,
                            const TileOut& out) {
  for (int64_t i = 0; i < out.rows; i++) {
    __builtin_prefetch(out.at + i * out.pitch, 1);
    __builtin_prefetch(out.at + i * out.pitch + out.columns - 1, 1);
  }
  TileSums<Vectors> sums = {};
  const float* low = a + kTileRows / 2 * rows.row;
  int64_t k = depth;
  for (; k >= kSteps; k -= kSteps) {
    steps<Vectors>(sums, rows, a, low, b, pitch, std::make_integer_sequence<int, kSteps>());
    a += kSteps * rows.column;
    low += kSteps * rows.column;
  }
  for (; k > 0; k--) {
    steps<Vectors>(sums, rows, a, low, b, pitch, std::make_integer_sequence<int, 1>());
    a += rows.column;
    low += rows.column;
  }
  if (out.rows == kTileRows && out.columns == Vectors * kLanes) {
    store_tile<Vectors>(sums, out, std::make_integer_sequence<int, kTileRows>());
    return;
  }
  float kept[kTileRows][Vectors * kLanes];
  memcpy(kept, sums, sizeof kept);
  for (int64_t i = 0; i < out.rows; i++) {
    float* const to = out.at + i * out.pitch;
    for (int64_t j = 0; j < out.columns; j++) to[j] = out.add ? to[j] + kept[i][j] : kept[i][j];
  }
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
