// Few vectors times many: every row of a large matrix is read once and multiplied with each of a few vectors, which
// stay in the first-level cache. One-token decoding is this; it runs at the speed of memory.
// Knows dot products. Knows no blocking and no threads.
#pragma once

#include "matmul_element.h"
#include "matmul_quad.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Elements of the large matrix that one step reads: a vector of f32, or a vector of pairs of halves, whose even and odd
/// elements become a vector each.
template <typename T>
constexpr int kStep = sizeof(T) == 4 ? kLanes : 2 * kLanes;

/// Floats of a vector of `depth` elements as it is kept for a matrix of T.
template <typename T>
int64_t kept_length(int64_t depth) {
  return (depth + kStep<T> - 1) / kStep<T> * kStep<T>;
}

/// Puts a vector into the order in which steps read it, with zeros at its end.
template <typename T>
void keep_vector(const float* from, int64_t depth, float* to) {
  constexpr int step = kStep<T>;
  const int64_t length = kept_length<T>(depth), whole = depth / step * step;
  if (step == kLanes) {
    memcpy(to, from, static_cast<size_t>(depth) * sizeof(float));
    for (int64_t k = depth; k < length; k++) to[k] = 0;
    return;
  }
  for (int64_t k = 0; k < length; k += step) {
    for (int64_t i = 0; i < kLanes; i++) {
      to[k + i] = k < whole || k + 2 * i < depth ? from[k + 2 * i] : 0;
      to[k + kLanes + i] = k < whole || k + 2 * i + 1 < depth ? from[k + 2 * i + 1] : 0;
    }
  }
}

inline void load_step(const float* from, Vec (&v)[1]) { v[0] = load(from); }

template <typename Half>
void load_step(const Half* from, Vec (&v)[2]) {
  VecWord pairs;
  memcpy(&pairs, from, sizeof pairs);
  v[0] = widen_words(pairs & 0xffff, from);
  v[1] = widen_words(pairs >> 16, from);
}

/// sums[r][w] += one step of vector r times one step of row w.
template <int Vectors, int Rows, typename T>
[[gnu::always_inline]] inline void dot_step(Vec (&sums)[Vectors][Rows], const float* kept, int64_t kept_pitch,
                                            const T* const (&rows)[Rows], int64_t k, int64_t ahead) {
  constexpr int parts = kStep<T> / kLanes;
  Vec row[Rows][parts];
  for (int w = 0; w < Rows; w++) {
    load_step(rows[w] + k, row[w]);
    __builtin_prefetch(rows[w] + k + ahead);
  }
  for (int r = 0; r < Vectors; r++) {
    for (int part = 0; part < parts; part++) {
      const Vec vector = load(kept + r * kept_pitch + part * kLanes);
      for (int w = 0; w < Rows; w++) sums[r][w] += row[w][part] * vector;
    }
  }
}

/// Bytes that each row is fetched ahead: the next row as its end comes near.
constexpr int64_t kFetchAhead = 1024;
/// Rows of the large matrix whose products are written together.
constexpr int64_t kDotRun = 512;

/// totals[r * kDotRun + w * spread] = the dot product of vector r and row w * spread.
template <int Vectors, int Rows, typename T>
void dot_tile(const float* kept, int64_t kept_pitch, const T* from, int64_t pitch, int64_t spread, int64_t depth,
              float* totals) {
  constexpr int step = kStep<T>;
  constexpr int64_t ahead = kFetchAhead / sizeof(T);
  Vec sums[Vectors][Rows] = {};
  const T* rows[Rows];
  for (int w = 0; w < Rows; w++) rows[w] = from + w * spread * pitch;
  int64_t k = 0;
  for (; k + step <= depth; k += step) dot_step<Vectors, Rows, T>(sums, kept + k, kept_pitch, rows, k, ahead);
  if (k < depth) {
    T ends[Rows][step] = {};
    const T* last[Rows];
    for (int w = 0; w < Rows; w++) {
      memcpy(ends[w], rows[w] + k, static_cast<size_t>(depth - k) * sizeof(T));
      last[w] = ends[w];
    }
    dot_step<Vectors, Rows, T>(sums, kept + k, kept_pitch, last, 0, 0);
  }
  constexpr int count = Vectors * Rows;
  for (int i = 0; i < count; i += 4) {
    Vec v[4] = {};
    for (int j = 0; j < 4 && i + j < count; j++) v[j] = sums[(i + j) / Rows][(i + j) % Rows];
    float four[4];
    sum_lanes(v, four);
    for (int j = 0; j < 4 && i + j < count; j++) totals[(i + j) / Rows * kDotRun + (i + j) % Rows * spread] = four[j];
  }
}

/// `Vectors` kept vectors times rows 0 .. count of a matrix, count <= kDotRun. Rows that go by together are far apart:
/// each is part of a stretch of memory that is read from its beginning to its end, and the machine fetches several such
/// stretches at once faster than one.
template <int Vectors, typename T>
void dot_run(const float* kept, int64_t kept_pitch, const T* from, int64_t pitch, int64_t count, int64_t depth,
             float* totals) {
  constexpr int rows = Vectors <= 2 ? 4 : 2;
  const int64_t spread = count / rows;
  for (int64_t n = 0; n < spread; n++) {
    dot_tile<Vectors, rows>(kept, kept_pitch, from + n * pitch, pitch, spread, depth, totals + n);
  }
  for (int64_t n = rows * spread; n < count; n++) {
    dot_tile<Vectors, 1>(kept, kept_pitch, from + n * pitch, pitch, 1, depth, totals + n);
  }
}

/// The same for a number of vectors up to four.
template <typename T>
void dot_run(int64_t vectors, const float* kept, int64_t kept_pitch, const T* from, int64_t pitch, int64_t count,
             int64_t depth, float* totals) {
  constexpr decltype(&dot_run<1, T>) runs[] = {dot_run<1, T>, dot_run<2, T>, dot_run<3, T>, dot_run<4, T>};
  runs[vectors - 1](kept, kept_pitch, from, pitch, count, depth, totals);
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
