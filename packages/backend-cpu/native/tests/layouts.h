// Views of random layout, and walks over their elements, for the tests of kernels that take any strides.
// Knows shapes and strides. Knows no kernel.
#pragma once

#include <utility>

#include "testing.h"

namespace diffmamba {
namespace testing {

using Doubles = std::vector<double>;

inline std::vector<int64_t> random_shape(int rank, int64_t most) {
  std::vector<int64_t> shape(static_cast<size_t>(rank));
  for (int64_t& size : shape) size = 1 + numbers.below(most);
  return shape;
}

/// A view of random layout: axes in any order, with gaps, some of them repeated (stride 0).
struct Layout {
  std::vector<int64_t> shape, strides;
  int64_t room = 1;

  Layout(const std::vector<int64_t>& sizes, bool repeats) : shape(sizes), strides(sizes.size()) {
    std::vector<size_t> order(shape.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = i;
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[static_cast<size_t>(numbers.below(static_cast<int64_t>(i)))]);
    for (const size_t axis : order) {
      const bool repeated = repeats && numbers.below(5) == 0;
      strides[axis] = repeated ? 0 : room;
      if (!repeated) room *= shape[axis] + (numbers.below(3) == 0 ? 2 : 0);
    }
  }

  Layout(int rank, int64_t most, bool repeats) : Layout(random_shape(rank, most), repeats) {}

  int64_t size() const {
    int64_t n = 1;
    for (const int64_t size : shape) n *= size;
    return n;
  }
};

/// Calls body(index) for every index of a shape, in order.
inline void each_index(const std::vector<int64_t>& shape, const std::function<void(const std::vector<int64_t>&)>& body) {
  std::vector<int64_t> index(shape.size());
  while (true) {
    body(index);
    size_t axis = shape.size();
    for (; axis > 0; axis--) {
      if (++index[axis - 1] < shape[axis - 1]) break;
      index[axis - 1] = 0;
    }
    if (axis == 0) return;
  }
}

inline int64_t offset(const std::vector<int64_t>& index, const std::vector<int64_t>& strides) {
  int64_t at = 0;
  for (size_t i = 0; i < index.size(); i++) at += index[i] * strides[i];
  return at;
}

inline std::vector<int64_t> dense(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i > 0; stride *= shape[--i]) strides[i - 1] = stride;
  return strides;
}

}  // namespace testing
}  // namespace diffmamba
