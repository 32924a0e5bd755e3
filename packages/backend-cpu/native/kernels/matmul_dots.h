// Products with few rows on one side, as dot products: which ones, and how they are shared out.
// Knows a batch and threads. Knows no registers.
#pragma once

#include "../pool.h"
#include "matmul_batch.h"
#include "matmul_dot.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// A result of up to so many rows is made of dot products where both factors have contiguous depth.
constexpr int64_t kDotVectors = 8;
/// Bytes of the large matrix that one piece of dot products reads, at most; and how many pieces there are, a multiple.
constexpr int64_t kDotPieceBytes = 1 << 19;
constexpr int64_t kDotPieces = 4;

bool suits_dots(const Product& p) {
  return p.right.row == 1 && p.rows <= kDotVectors;
}

/// The rows of the left factor in the order in which steps of dot products with elements of T read them.
template <typename T>
void keep_rows(const Product& p, float* kept) {
  const int64_t length = kept_length<T>(p.depth);
  float* const row = kept + p.rows * length;
  for (int64_t r = 0; r < p.rows; r++) {
    with_type(p.left, r, 0, [&](const auto* x) {
      if (p.left.by_rows()) return widen(x, row, p.depth);
      for (int64_t k = 0; k < p.depth; k++) row[k] = x[k * p.left.column];
    });
    keep_vector<T>(row, p.depth, kept + r * length);
  }
}

/// The rows of the left factor, which are kept, times columns j0 .. j1 of the right one, where depth is contiguous in both.
template <typename T>
void dot_block(const Product& p, const float* kept, int64_t j0, int64_t j1) {
  const int64_t length = kept_length<T>(p.depth);
  const int64_t most = std::min<int64_t>(p.rows, 4);
  const T* from = reinterpret_cast<const T*>(p.right.at(0, j0));
  float totals[4 * kDotRun];
  for (int64_t j = j0; j < j1; j += kDotRun, from += kDotRun * p.right.column) {
    const int64_t count = std::min(kDotRun, j1 - j);
    for (int64_t r0 = 0; r0 < p.rows; r0 += most) {
      const int64_t vectors = std::min(most, p.rows - r0);
      dot_run(vectors, kept + r0 * length, length, from, p.right.column, count, p.depth, totals);
      for (int64_t r = 0; r < vectors; r++) {
        with_type(p.out, r0 + r, j, [&](auto* to) {
          const float* const sums = totals + r * kDotRun;
          if (p.out.by_rows()) return narrow(sums, to, count, p.add);
          for (int64_t i = 0; i < count; i++) narrow(sums + i, to + i * p.out.column, 1, p.add);
        });
      }
    }
  }
}

/// Columns of the right factor that one piece of dot products takes: as many in each, and of small matrices, whose pieces
/// all threads should end with at once, a number that many counts of threads divide.
int64_t dot_columns(const Product& p) {
  const int64_t bytes = p.columns * p.depth * static_cast<int64_t>(bytes_of(p.right.dtype));
  const int64_t pieces = round_up(pieces_of(bytes, kDotPieceBytes), bytes > kDotPieceBytes ? kDotPieces : 1);
  return std::max<int64_t>(16, round_up(pieces_of(p.columns, pieces), 4));
}

Error dot_products(const Batch& batch) {
  const Product& p = batch.first;
  const int64_t run = dot_columns(p);
  const int64_t runs = pieces_of(p.columns, run);
  const int64_t bytes = std::min(run, p.columns) * p.depth * static_cast<int64_t>(bytes_of(p.right.dtype));
  const int64_t grain = std::max<int64_t>(1, kDotPieceBytes / bytes);
  Memory memory;
  with_type(p.right, 0, 0, [&](const auto* from) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    const int64_t room = p.rows * kept_length<T>(p.depth) + p.depth;
    // One matrix's rows are kept once for all pieces.
    float* const shared = batch.count == 1 ? scratch(Use::panels).floats(room) : nullptr;
    if (shared != nullptr) keep_rows<T>(p, shared);
    parallel_for(batch.count * runs, grain, [&](int64_t begin, int64_t end) {
      float* const kept = shared != nullptr ? shared : scratch(Use::piece).floats(room);
      memory.note(kept != nullptr);
      for (int64_t n = begin; kept != nullptr && n < end; n++) {
        const Product q = batch.at(n / runs);
        const int64_t j = n % runs * run;
        if (shared == nullptr && (n == begin || j == 0)) keep_rows<T>(q, kept);
        dot_block<T>(q, kept, j, std::min(p.columns, j + run));
      }
    });
  });
  return memory.error(p);
}

}  // namespace
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
