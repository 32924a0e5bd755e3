// Vectors as groups of four lanes, whatever their width: transposition, and sums of their lanes.
// Knows lanes. Knows no matrix.
#pragma once

#include <utility>

#include "matmul_element.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

typedef float Quad __attribute__((vector_size(16)));

template <int Lanes>
struct Indices {
  typedef int32_t Vector __attribute__((vector_size(Lanes * sizeof(int32_t))));
};

/// Lane i of the result is lane Pick::at(i, number of lanes) of a and b, one after the other.
template <typename Pick, typename V, int... I>
[[gnu::always_inline]] inline V shuffle(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int lanes = sizeof...(I);
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Pick::at(I, lanes)...);
#else
  return __builtin_shuffle(a, b, typename Indices<lanes>::Vector{Pick::at(I, lanes)...});
#endif
}

template <typename Pick, typename V>
[[gnu::always_inline]] inline V shuffle(V a, V b) {
  return shuffle<Pick>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(float)>());
}

/// In every group: lanes of a's four (0 to 3) and b's (4 to 7).
template <int I, int J, int K, int L>
struct InGroups {
  static constexpr int at(int i, int lanes) {
    constexpr int picked[] = {I, J, K, L};
    return i / 4 * 4 + picked[i % 4] % 4 + picked[i % 4] / 4 * lanes;
  }
};

/// The first `Count` lanes of a, then those of b.
template <int Count>
struct FirstOf {
  static constexpr int at(int i, int lanes) { return i < Count ? i : (lanes + i - Count) % (2 * lanes); }
};

/// The first four elements of rows 0, 4, 8 and so on, side by side. Reads a vector of each.
template <int Width = kLanes, typename T>
[[gnu::always_inline]] inline Vec load_groups(const T* from, int64_t pitch) {
  if constexpr (Width == 4) {
    return widened(from);
  } else {
    constexpr int half = Width / 2;
    return shuffle<FirstOf<half>>(load_groups<half>(from, pitch), load_groups<half>(from + half * pitch, pitch));
  }
}

/// In every group of four vectors, lane i of vector j becomes lane j of vector i, which is stored at to + i * pitch.
template <typename V>
[[gnu::always_inline]] inline void store_transposed(V a, V b, V c, V d, float* to, int64_t pitch) {
  const V ab_low = shuffle<InGroups<0, 4, 1, 5>>(a, b);
  const V ab_high = shuffle<InGroups<2, 6, 3, 7>>(a, b);
  const V cd_low = shuffle<InGroups<0, 4, 1, 5>>(c, d);
  const V cd_high = shuffle<InGroups<2, 6, 3, 7>>(c, d);
  const V rows[] = {shuffle<InGroups<0, 1, 4, 5>>(ab_low, cd_low), shuffle<InGroups<2, 3, 6, 7>>(ab_low, cd_low),
                    shuffle<InGroups<0, 1, 4, 5>>(ab_high, cd_high), shuffle<InGroups<2, 3, 6, 7>>(ab_high, cd_high)};
  for (int i = 0; i < 4; i++) memcpy(to + i * pitch, &rows[i], sizeof(V));
}

/// to[j * to_pitch + i] = from[i * pitch + j] for i < kLanes, j < 4. Reads a vector of each row.
template <typename T>
inline void transpose_rows(const T* from, int64_t pitch, float* to, int64_t to_pitch) {
  store_transposed(load_groups(from, pitch), load_groups(from + pitch, pitch), load_groups(from + 2 * pitch, pitch),
                   load_groups(from + 3 * pitch, pitch), to, to_pitch);
}

/// to[j * to_pitch + i] = from[i * pitch + j] for i, j < 4. Reads no more than that.
inline void transpose_quads(const float* from, int64_t pitch, float* to, int64_t to_pitch) {
  Quad rows[4];
  for (int i = 0; i < 4; i++) memcpy(&rows[i], from + i * pitch, sizeof(Quad));
  store_transposed(rows[0], rows[1], rows[2], rows[3], to, to_pitch);
}

/// The sums of four vectors' lanes, each in the same order.
inline void sum_lanes(const Vec (&v)[4], float (&to)[4]) {
  const Vec ab = shuffle<InGroups<0, 4, 1, 5>>(v[0], v[1]) + shuffle<InGroups<2, 6, 3, 7>>(v[0], v[1]);
  const Vec cd = shuffle<InGroups<0, 4, 1, 5>>(v[2], v[3]) + shuffle<InGroups<2, 6, 3, 7>>(v[2], v[3]);
  const Vec four = shuffle<InGroups<0, 1, 4, 5>>(ab, cd) + shuffle<InGroups<2, 3, 6, 7>>(ab, cd);
  for (int i = 0; i < 4; i++) {
    to[i] = four[i];
    for (int lane = i + 4; lane < kLanes; lane += 4) to[i] += four[lane];
  }
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
