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
#elif defined(__wasm__)
constexpr int kTileRows = 4;  // Engines of 2023 spill more than eight sums.
#else
constexpr int kTileRows = 6;
#endif
/// Steps of the depth in one turn of the loop. Under a sanitizer each would be compiled with all its checks.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSteps = 1;
#elif defined(__FMA__) || defined(__aarch64__)
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

/// Where a tile of the result goes.
struct TileOut {
  float* at;
  int64_t pitch;
  int64_t rows;
  int64_t columns;
  /// Add to what is there.
  bool add;
};

template <int Rows, int Vectors>
using TileSums = Vec[Rows][Vectors];

/// sum += left * right, where the sum is: gcc, left free, moves sums about until it runs out of registers.
[[gnu::always_inline]] inline void add_product(Vec& sum, Vec left, Vec right) {
#if defined(__FMA__)
  asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
#elif defined(__wasm_relaxed_simd__)
  sum = __builtin_wasm_relaxed_madd_f32x4(left, right, sum);
#else
  sum += left * right;
#endif
}

/// One step of the depth: a column of the left factor times a row of the right one. `low` is the column's second half.
template <int Rows, int Vectors, typename Left, int... I>
[[gnu::always_inline]] inline void step(TileSums<Rows, Vectors>& sums, const Left& left, const float* a,
                                        const float* low, const float* b, std::integer_sequence<int, I...>) {
  Vec right[Vectors];
  for (int v = 0; v < Vectors; v++) right[v] = load(b + v * kLanes);
  const auto row = [&](int i, Vec (&sum)[Vectors]) __attribute__((always_inline)) {
    const Vec x = splat(i < Rows / 2 ? a[i * left.row] : low[(i - Rows / 2) * left.row]);
    for (int v = 0; v < Vectors; v++) add_product(sum[v], x, right[v]);
  };
  (row(I, sums[I]), ...);
}

/// Several steps. Moves b on.
template <int Rows, int Vectors, typename Left, int... K>
[[gnu::always_inline]] inline void steps(TileSums<Rows, Vectors>& sums, const Left& left, const float* a,
                                         const float* low, const float*& b, int64_t pitch,
                                         std::integer_sequence<int, K...>) {
  constexpr auto all = std::make_integer_sequence<int, Rows>();
  ((step<Rows, Vectors>(sums, left, a + K * left.column, low + K * left.column, b, all), b += pitch), ...);
}

/// All of a tile's sums.
template <int Rows, int Vectors, int... I>
[[gnu::always_inline]] inline void store_tile(const TileSums<Rows, Vectors>& sums, const TileOut& out,
                                              std::integer_sequence<int, I...>) {
  const auto row = [&](float* to, const Vec(&sum)[Vectors]) __attribute__((always_inline)) {
    for (int v = 0; v < Vectors; v++, to += kLanes) store(to, out.add ? sum[v] + load(to) : sum[v]);
  };
  (row(out.at + I * out.pitch, sums[I]), ...);
}

/// The tile's sums over `depth`, added to `out` or stored there. The rows of b are `pitch` apart; it is read in whole
/// vectors.
template <int Rows, int Vectors, typename Left>
[[gnu::noinline]] void tile(int64_t depth, Left left, const float* a, const float* b, int64_t pitch,
                            const TileOut& out) {
  for (int64_t i = 0; i < Rows; i++) {
    __builtin_prefetch(out.at + i * out.pitch, 1);
    __builtin_prefetch(out.at + i * out.pitch + out.columns - 1, 1);
  }
  TileSums<Rows, Vectors> sums = {};
  const float* low = a + Rows / 2 * left.row;
  int64_t k = depth;
  for (; k >= kSteps; k -= kSteps) {
    steps<Rows, Vectors>(sums, left, a, low, b, pitch, std::make_integer_sequence<int, kSteps>());
    a += kSteps * left.column;
    low += kSteps * left.column;
  }
  for (; k > 0; k--) {
    steps<Rows, Vectors>(sums, left, a, low, b, pitch, std::make_integer_sequence<int, 1>());
    a += left.column;
    low += left.column;
  }
  if (out.columns == Vectors * kLanes) {
    store_tile<Rows, Vectors>(sums, out, std::make_integer_sequence<int, Rows>());
    return;
  }
  float kept[Rows][Vectors * kLanes];
  memcpy(kept, sums, sizeof kept);
  for (int64_t i = 0; i < Rows; i++) {
    float* const to = out.at + i * out.pitch;
    for (int64_t j = 0; j < out.columns; j++) to[j] = out.add ? to[j] + kept[i][j] : kept[i][j];
  }
}

/// The tile of as many rows as `out` has, up to kTileRows.
template <int Vectors, typename Left, int... I>
void tile_of_rows(int64_t depth, Left left, const float* a, const float* b, int64_t pitch, const TileOut& out,
                  std::integer_sequence<int, I...>) {
  constexpr decltype(&tile<1, Vectors, Left>) tiles[] = {tile<I + 1, Vectors, Left>...};
  tiles[out.rows - 1](depth, left, a, b, pitch, out);
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
