// The reductions, argmax and running sums against plain loops in doubles: any layout, lengths that fill no vector, and the
// same bits with 1, 2 and 3 threads. scripts/test-native.mjs builds and runs it, plain and with sanitizers.
// Knows the kernels of reduce.cc by their packed arguments alone.

#include <limits>

#include "layouts.h"

namespace diffmamba {
namespace testing {
namespace {

using namespace DIFFMAMBA_ISA;

const float kNaN = std::numeric_limits<float>::quiet_NaN();

template <typename T>
void test_reduce_layout(const Layout& from, uint64_t reduced, double low, double high) {
  Array<T> x(from.room, low, high);
  if (sizeof(T) == 4 && kType<T> == DType::f32 && numbers.below(3) == 0) x[numbers.below(x.size())] = static_cast<T>(kNaN);
  std::vector<int64_t> shape = from.shape;
  for (size_t axis = 0; axis < shape.size(); axis++) {
    if (reduced >> axis & 1) shape[axis] = 1;
  }
  const std::vector<int64_t> steps = dense(shape);
  std::vector<int64_t> target = steps;
  for (size_t axis = 0; axis < shape.size(); axis++) target[axis] = shape[axis] == 1 ? 0 : steps[axis];
  int64_t size = 1;
  for (const int64_t n : shape) size *= n;
  Doubles sums(static_cast<size_t>(size)), greatest(static_cast<size_t>(size), -HUGE_VAL);
  each_index(from.shape, [&](const std::vector<int64_t>& index) {
    const double value = static_cast<double>(x[offset(index, from.strides)]);
    const size_t to = static_cast<size_t>(offset(index, target));
    sums[to] += value;
    if (value > greatest[to] || std::isnan(value)) greatest[to] = value;
  });
  if (kType<T> == DType::u8) {
    for (double& sum : sums) sum = std::fmod(sum, 256);
  }
  Array<T> y(size);
  const View in = x.view(from.shape, from.strides), out = y.view(shape, steps);
  title = "reduce sum";
  run(reduce, Packed() << 0 << in << out, {y});
  close("sum", y, sums, 1e-6);
  title = "reduce max";
  run(reduce, Packed() << 1 << in << out, {y});
  close("max", y, greatest, 0);
}

void test_reduce() {
  for (int i = 0; i < 300; i++) {
    const int rank = static_cast<int>(numbers.below(7));
    const Layout from(rank, rank > 4 ? 6 : rank > 2 ? 14 : 70, true);
    const uint64_t reduced = numbers.word();
    test_reduce_layout<float>(from, reduced, -1, 1);
    if (i % 3 == 0) test_reduce_layout<int32_t>(from, reduced, -1e6, 1e6);
    if (i % 3 == 1) test_reduce_layout<uint8_t>(from, reduced, 0, 255);
  }
  // Long enough for segments, on either side and in the middle; all, and nothing, reduced.
  Layout large(3, 1, false);
  const std::vector<int64_t> shapes[] = {{1, 1, 300001}, {70001, 1, 5}, {5001, 3, 67}, {3, 300, 301}};
  for (const std::vector<int64_t>& shape : shapes) {
    large.shape = shape;
    large.strides = dense(shape);
    large.room = large.size();
    for (const uint64_t reduced : {1u, 2u, 4u, 5u, 7u}) test_reduce_layout<float>(large, reduced, -1, 1);
  }
}

template <typename T>
void test_argmax_of(const Layout& from, double low, double high) {
  title = "argmax";
  Array<T> x(from.room, low, high);
  if (kType<T> == DType::f32) {
    for (int i = 0; i < 3; i++) x[numbers.below(x.size())] = static_cast<T>(i == 0 ? kNaN : -INFINITY);
  }
  const std::vector<int64_t> shape(from.shape.begin(), from.shape.end() - 1);
  const int64_t n = from.shape.back();
  Doubles expected;
  each_index(shape, [&](const std::vector<int64_t>& index) {
    const int64_t at = offset(index, {from.strides.begin(), from.strides.end() - 1});
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) best = x[at + i * from.strides.back()] > x[at + best * from.strides.back()] ? i : best;
    expected.push_back(static_cast<double>(best));
  });
  Array<int32_t> y(static_cast<int64_t>(expected.size()));
  run(argmax, Packed() << x.view(from.shape, from.strides) << y.view(shape), {y});
  close("index", y, expected, 0);
}

void test_argmax() {
  for (int i = 0; i < 200; i++) {
    const Layout from(1 + static_cast<int>(numbers.below(4)), i % 2 == 0 ? 20 : 100, true);
    if (from.size() > 300000) continue;
    test_argmax_of<float>(from, -3, 3);
    test_argmax_of<int32_t>(from, -9, 9);
    test_argmax_of<uint8_t>(from, 0, 4);
  }
  Layout wide(2, 1, false);
  wide.shape = {3, 50281};
  wide.strides = dense(wide.shape);
  wide.room = wide.size();
  test_argmax_of<float>(wide, -9, 9);
}

void test_cumsum() {
  title = "cumsum";
  for (int i = 0; i < 200; i++) {
    const Layout from(1 + static_cast<int>(numbers.below(4)), i % 4 == 0 ? 140 : 12, true);
    if (from.size() > 300000) continue;
    const size_t axis = static_cast<size_t>(numbers.below(static_cast<int64_t>(from.shape.size())));
    const bool reverse = numbers.below(2) == 1;
    Array<float> x(from.room, -1, 1), y(from.size());
    const std::vector<int64_t> steps = dense(from.shape);
    Doubles expected(static_cast<size_t>(from.size()));
    each_index(from.shape, [&](const std::vector<int64_t>& index) {
      std::vector<int64_t> part = index;
      double sum = 0;
      for (int64_t t = 0; t < from.shape[axis]; t++) {
        part[axis] = t;
        if (reverse ? t >= index[axis] : t <= index[axis]) sum += static_cast<double>(x[offset(part, from.strides)]);
      }
      expected[static_cast<size_t>(offset(index, steps))] = sum;
    });
    run(cumsum, Packed() << x.view(from.shape, from.strides) << y.view(from.shape) << static_cast<double>(axis) << reverse, {y});
    close("sums", y, expected, 1e-6);
  }
}

}  // namespace
}  // namespace testing
}  // namespace diffmamba

int main() {
  using namespace diffmamba::testing;
  return finish({test_reduce, test_argmax, test_cumsum});
}
