// What the tests of sequence kernels share: tensors with rows some way apart, sequences that are packed and padded, and
// functions in doubles.
// Knows shapes. Knows no kernel.
#pragma once

#include <algorithm>
#include <memory>

#include "testing.h"

namespace diffmamba {
namespace testing {

using Doubles = std::vector<double>;

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

/// A tensor with rows of `width`, `pitch` apart, from any place in its memory on; absent where it is not wanted.
struct Tensor {
  std::vector<int64_t> shape, strides;
  int64_t rows = 1, width = 1, pitch = 1, first = numbers.below(4);
  std::unique_ptr<Array<float>> memory;

  Tensor(bool present, std::vector<int64_t> sizes, int inner, int64_t gap, double low, double high) : shape(sizes) {
    const size_t outer = sizes.size() - static_cast<size_t>(inner);
    for (size_t i = 0; i < sizes.size(); i++) (i < outer ? rows : width) *= sizes[i];
    pitch = width + gap;
    strides.resize(sizes.size());
    int64_t stride = 1;
    for (size_t i = sizes.size(); i > 0; stride *= sizes[--i]) {
      if (i == outer) stride = pitch;
      strides[i - 1] = stride;
    }
    if (present) memory = std::make_unique<Array<float>>(first + rows * pitch, low, high);
  }
  Tensor(bool present, std::vector<int64_t> sizes, int inner = 1, int64_t gap = 0)
      : Tensor(present, std::move(sizes), inner, gap, -1, 1) {}

  explicit operator bool() const { return memory != nullptr; }
  View view() const { return memory ? memory->view(shape, strides, first) : View{}; }
  double at(int64_t row, int64_t column) const {
    return memory ? static_cast<double>((*memory)[first + row * pitch + column]) : 0;
  }
  double flat(int64_t i) const { return at(i / width, i % width); }

  void matches(const char* what, const Doubles& expected, double limit) const {
    if (!memory) return;
    Array<float> dense(rows * width);
    for (int64_t i = 0; i < dense.size(); i++) dense[i] = static_cast<float>(flat(i));
    close(what, dense, expected, limit);
  }
};

inline Doubles zeros(int64_t n) { return Doubles(static_cast<size_t>(n)); }
inline double& at(Doubles& x, int64_t i) { return x[static_cast<size_t>(i)]; }

/// Which tokens begin a sequence, and how many of each row are no padding.
struct Sequences {
  int64_t length;
  Array<int32_t> index, lengths;
  bool packed, padded;

  Sequences(int64_t batch, int64_t tokens, bool is_packed, bool is_padded)
      : length(tokens), index(batch * tokens), lengths(batch), packed(is_packed), padded(is_padded) {
    for (int64_t b = 0; b < batch; b++) {
      int32_t id = 0;
      for (int64_t t = 0; t < tokens; t++) index[b * tokens + t] = id += numbers.below(5) == 0 ? 1 : 0;
      lengths[b] = static_cast<int32_t>(numbers.below(tokens + 4) - 2);
    }
  }
  View index_view() const { return packed ? index.view({lengths.size(), length}) : View{}; }
  View lengths_view() const { return padded ? lengths.view() : View{}; }
  bool begins(int64_t b, int64_t t) const {
    return packed && t > 0 && index[b * length + t] != index[b * length + t - 1];
  }
  int64_t end(int64_t b) const {
    return padded ? std::min<int64_t>(std::max<int64_t>(lengths[b], 0), length) : length;
  }
  int64_t start(int64_t b, int64_t t) const {
    while (t > 0 && !begins(b, t)) t--;
    return t < 0 ? 0 : t;
  }
};

inline bool maybe() { return numbers.below(2) == 0; }
inline int64_t gap() { return numbers.below(3) * 5; }

/// The tensors that are there, as outputs of a kernel.
inline std::vector<Written> written(const std::vector<const Tensor*>& tensors) {
  std::vector<Written> list;
  for (const Tensor* t : tensors) {
    if (*t) list.emplace_back(*t->memory);
  }
  return list;
}

}  // namespace testing
}  // namespace diffmamba
