// Walks several strided operands of one shape at once: neighbouring axes are merged where all operands allow it, and the
// innermost runs are shared out among the threads, by size alone.
// Knows layouts. Knows no element type and no op.
#pragma once

#include "../pool.h"
#include "../view.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// Elements that one piece of an elementwise loop has at least.
constexpr int64_t kPieceElements = 16384;

template <int Count>
struct Runs {
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[Count][kMaxRank] = {};

  /// All views are seen with the shape of the first.
  explicit Runs(const View* const (&views)[Count]) {
    const View& like = *views[0];
    for (int axis = 0; axis < like.rank; axis++) {
      const int64_t size = like.shape[axis];
      if (size == 1) continue;
      bool joins = rank > 0;
      for (int i = 0; i < Count; i++) {
        joins = joins && strides[i][rank - 1] == views[i]->strides[axis] * size;
      }
      if (!joins) rank++;
      shape[rank - 1] = joins ? shape[rank - 1] * size : size;
      for (int i = 0; i < Count; i++) strides[i][rank - 1] = views[i]->strides[axis];
    }
    if (rank == 0) {
      rank = 1;
      shape[0] = 1;
    }
  }

  int64_t inner() const { return shape[rank - 1]; }

  int64_t step(int operand) const { return strides[operand][rank - 1]; }

  int64_t outer() const {
    int64_t n = 1;
    for (int i = 0; i < rank - 1; i++) n *= shape[i];
    return n;
  }

  /// Where run `index` begins in each operand, in elements.
  void locate(int64_t index, int64_t (&at)[Count]) const {
    for (int i = 0; i < Count; i++) at[i] = 0;
    for (int axis = rank - 2; axis >= 0; axis--) {
      const int64_t k = index % shape[axis];
      index /= shape[axis];
      for (int i = 0; i < Count; i++) at[i] += k * strides[i][axis];
    }
  }

  /// Calls body(at, n) for stretches of runs, each once, from any thread: n elements from the offsets `at`, `step` apart.
  template <typename Body>
  void each(const Body& body) const {
    const int64_t n = inner();
    if (outer() == 1) {
      parallel_for(n, kPieceElements, [&](int64_t begin, int64_t end) {
        int64_t at[Count];
        for (int i = 0; i < Count; i++) at[i] = begin * step(i);
        body(at, end - begin);
      });
      return;
    }
    parallel_for(outer(), 1 + kPieceElements / n, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; index++) {
        int64_t at[Count];
        locate(index, at);
        body(at, n);
      }
    });
  }
};

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
