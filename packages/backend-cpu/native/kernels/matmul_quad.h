// Vectors as groups of four lanes, whatever their width: transposition, and sums of their lanes.
// Knows lanes. Knows no matrix.
#pragma once

#include <utility>

#include "matmul_element.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Lane i of the result is lane Pick::at(i) of a and b, one after the other.
template <typename Pick, int... I>
[[gnu::always_inline]] inline Vec shuffle(Vec a, Vec b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Pick::at(I)...);
#else
  return __builtin_shuffle(a, b, VecInt{Pick::at(I)...});
#endif
}

template <typename Pick>
[[gnu::always_inline]] inline Vec shuffle(Vec a, Vec b) {
  return shuffle<Pick>(a, b, std::make_integer_sequence<int, kLanes>());
}

/// In every group: lanes of a's four (0 to 3) and b's (4 to 7).
template <int I, int J, int K, int L>
struct InGroups {
  static constexpr int at(int i) {
    constexpr int lanes[] = {I, J, K, L};
    return i / 4 * 4 + lanes[i % 4] % 4 + lanes[i % 4] / 4 * kLanes;
  }
};

/// The first `Count` lanes of a, then those of b.
template <int Count>
struct FirstOf {
  static constexpr int at(int i) { return i < Count ? i : (kLanes + i - Count) % (2 * kLanes); }
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

/// to[j * to_pitch + i] = from[i * pitch + j] for i < kLanes, j < 4. Reads a vector of each row.
template <typename T>
inline void transpose_rows(const T* from, int64_t pitch, float* to, int64_t to_pitch) {
  const Vec a = load_groups(from, pitch);
  const Vec b = load_groups(from + pitch, pitch);
  const Vec c = load_groups(from + 2 * pitch, pitch);
  const Vec d = load_groups(from + 3 * pitch, pitch);
  const Vec ab_low = shuffle<InGroups<0, 4, 1, 5>>(a, b);
  const Vec ab_high = shuffle<InGroups<2, 6, 3, 7>>(a, b);
  const Vec cd_low = shuffle<InGroups<0, 4, 1, 5>>(c, d);
  const Vec cd_high = shuffle<InGroups<2, 6, 3, 7>>(c, d);
  store(to, shuffle<InGroups<0, 1, 4, 5>>(ab_low, cd_low));
  store(to + to_pitch, shuffle<InGroups<2, 3, 6, 7>>(ab_low, cd_low));
  store(to + 2 * to_pitch, shuffle<InGroups<0, 1, 4, 5>>(ab_high, cd_high));
  store(to + 3 * to_pitch, shuffle<InGroups<2, 3, 6, 7>>(ab_high, cd_high));
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
