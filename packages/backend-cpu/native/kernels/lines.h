// A view's axes as two lists, those that a kernel walks along and those that it keeps, each in the order of memory and
// with neighbours merged; and where element i of such a list lies.
// Knows layouts. Knows no element type and no op.
#pragma once

#include "../view.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {

/// Some axes of an input, and the strides that an output has along them.
struct Axes {
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t from[kMaxRank] = {};
  int64_t to[kMaxRank] = {};

  void add(int64_t size, int64_t from_stride, int64_t to_stride) {
    if (size == 1) return;
    int at = rank++;
    for (; at > 0 && from[at - 1] < from_stride; at--) set(at, shape[at - 1], from[at - 1], to[at - 1]);
    set(at, size, from_stride, to_stride);
  }

  /// Call it once all are added. There is at least one axis then.
  void merge() {
    int last = 0;
    for (int axis = 1; axis < rank; axis++) {
      if (from[last] == from[axis] * shape[axis] && to[last] == to[axis] * shape[axis]) {
        set(last, shape[last] * shape[axis], from[axis], to[axis]);
      } else {
        last++;
        set(last, shape[axis], from[axis], to[axis]);
      }
    }
    if (rank == 0) set(0, 1, 1, 1);
    rank = last + 1;
  }

  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
  }

  int64_t inner() const { return shape[rank - 1]; }
  int64_t from_step() const { return from[rank - 1]; }
  int64_t to_step() const { return to[rank - 1]; }

  /// Where element `index` lies in the input and in the output.
  void locate(int64_t index, int64_t& in, int64_t& out) const {
    in = out = 0;
    for (int axis = rank - 1; axis > 0; axis--) {
      const int64_t k = index % shape[axis];
      index /= shape[axis];
      in += k * from[axis];
      out += k * to[axis];
    }
    in += index * from[0];
    out += index * to[0];
  }

  /// Calls body(in, out, n) for stretches of n elements of the innermost axis that make up begin .. end.
  template <typename Body>
  void each_run(int64_t begin, int64_t end, const Body& body) const {
    while (begin < end) {
      const int64_t left = inner() - (rank == 1 ? begin : begin % inner());
      const int64_t n = left < end - begin ? left : end - begin;
      int64_t in, out;
      locate(begin, in, out);
      body(in, out, n);
      begin += n;
    }
  }

 private:
  void set(int at, int64_t size, int64_t from_stride, int64_t to_stride) {
    shape[at] = size;
    from[at] = from_stride;
    to[at] = to_stride;
  }
};

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
