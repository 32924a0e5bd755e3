// Elementwise kernels, copies, fill and iota against plain loops in doubles: any layout, every pair of types, lengths that
// fill no vector, numbers that are none, and the same bits with 1, 2 and 3 threads. Nothing between elements is touched.
// scripts/test-native.mjs builds and runs it, plain and with sanitizers.
// Knows the kernels of elementwise.cc and copy.cc by their packed arguments alone.

#include <algorithm>
#include <limits>

#include "../half.h"
#include "layouts.h"

namespace diffmamba {
namespace testing {
namespace {

using namespace DIFFMAMBA_ISA;

const double kInfinity = std::numeric_limits<double>::infinity();
const double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Elements of a layout that begins some way into its memory; what lies between them is seen by nobody.
template <typename T>
struct Elements {
  Layout layout;
  int64_t first = numbers.below(4);
  Array<T> memory;

  Elements(const std::vector<int64_t>& shape, bool repeats) : layout(shape, repeats), memory(first + layout.room) {}
  Elements(const std::vector<int64_t>& shape, bool repeats, double low, double high)
      : layout(shape, repeats), memory(first + layout.room, low, high) {}

  View view() const { return memory.view(layout.shape, layout.strides, first); }
  int64_t place(const std::vector<int64_t>& index) const { return first + offset(index, layout.strides); }
  T at(const std::vector<int64_t>& index) const { return memory[place(index)]; }
};

/// All of an output's memory as it must be: the elements computed, the rest as it was.
template <typename T>
Doubles expected(const Elements<T>& out, const std::function<double(const std::vector<int64_t>&)>& value) {
  Doubles all;
  for (int64_t i = 0; i < out.memory.size(); i++) all.push_back(static_cast<double>(out.memory[i]));
  each_index(out.layout.shape, [&](const std::vector<int64_t>& index) { all[static_cast<size_t>(out.place(index))] = value(index); });
  return all;
}

/// Shapes of every rank, and some large enough for several pieces.
std::vector<std::vector<int64_t>> shapes() {
  std::vector<std::vector<int64_t>> list{{70003}, {3, 20001}, {40001, 2}, {1, 1, 1}, {129, 1, 301}};
  for (int rank = 0; rank <= kMaxRank; rank++) {
    for (int i = 0; i < 4; i++) list.push_back(random_shape(rank, rank > 3 ? 6 : 30));
  }
  return list;
}

struct Unary {
  const char* name;
  double (*function)(double);
  double low, high;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// In the order of their numbers.
const Unary unaries[] = {
    {"neg", [](double x) { return -x; }, -9, 9},
    {"abs", [](double x) { return std::fabs(x); }, -9, 9},
    {"sign", [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : x; }, -9, 9},
    {"exp", [](double x) { return std::exp(x); }, -20, 20},
    {"log", [](double x) { return std::log(x); }, 0, 9},
    {"sqrt", [](double x) { return std::sqrt(x); }, 0, 9},
    {"rsqrt", [](double x) { return 1 / std::sqrt(x); }, 0.1, 9},
    {"square", [](double x) { return x * x; }, -9, 9},
    {"reciprocal", [](double x) { return 1 / x; }, 0.1, 9},
    {"sigmoid", sigmoid, -20, 20},
    {"tanh", [](double x) { return std::tanh(x); }, -9, 9},
    {"softplus", [](double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }, -20, 20},
    {"silu", [](double x) { return x == -kInfinity ? 0 : x * sigmoid(x); }, -20, 20},
    {"erf", [](double x) { return std::erf(x); }, -4, 4},
};

void test_unary() {
  const auto all = shapes();
  for (size_t op = 0; op < std::size(unaries); op++) {
    const Unary& f = unaries[op];
    title = f.name;
    for (const std::vector<int64_t>& shape : all) {
      Elements<float> x(shape, true, f.low, f.high), y(shape, false);
      const Doubles want = expected(y, [&](const std::vector<int64_t>& index) {
        return static_cast<double>(static_cast<float>(f.function(static_cast<double>(x.at(index)))));
      });
      run(unary, Packed() << static_cast<double>(op) << x.view() << y.view(), {y.memory});
      close("values", y.memory, want, 1e-6);
    }
    // What is no number, or nearly none; in place.
    const double special[] = {kNaN, kInfinity, -kInfinity, 0, 1e-40, -1e-40, 1e38, -1e38, 88.8, -104.5};
    Array<float> x(std::size(special) * 3);
    Doubles want;
    for (int64_t i = 0; i < x.size(); i++) {
      x[i] = static_cast<float>(special[static_cast<size_t>(i) % std::size(special)]);
      want.push_back(static_cast<double>(static_cast<float>(f.function(static_cast<double>(x[i])))));
    }
    run(unary, Packed() << static_cast<double>(op) << x.view() << x.view(), {x});
    for (int64_t i = 0; i < x.size(); i++) {
      const double got = static_cast<double>(x[i]), wanted = want[static_cast<size_t>(i)];
      const bool same = std::isnan(wanted) ? std::isnan(got) : got == wanted || std::fabs(got - wanted) <= 1e-6 * std::fabs(wanted) + 1e-36;
      check(same, "of %g is %g, not %g", special[static_cast<size_t>(i) % std::size(special)], got, wanted);
    }
  }
}

struct Binary {
  const char* name;
  double (*function)(double, double);
};

/// In the order of their numbers.
const Binary binaries[] = {
    {"add", [](double a, double b) { return a + b; }},
    {"sub", [](double a, double b) { return a - b; }},
    {"mul", [](double a, double b) { return a * b; }},
    {"div", [](double a, double b) { return a / b; }},
    {"max", [](double a, double b) { return std::isnan(a) || std::isnan(b) ? kNaN : std::fmax(a, b); }},
    {"min", [](double a, double b) { return std::isnan(a) || std::isnan(b) ? kNaN : std::fmin(a, b); }},
    {"pow", [](double a, double b) { return std::pow(a, b); }},
};

/// A result in the element type: whole numbers are cut off, and bytes start again from 0.
template <typename T>
double stored(double value) {
  if (kType<T> == DType::f32) return static_cast<double>(static_cast<float>(value));
  const double whole = std::trunc(value);
  return kType<T> == DType::u8 ? whole - 256 * std::floor(whole / 256) : whole;
}

template <typename T>
void test_binary_of(double low, double high, bool numbers_alone) {
  for (size_t op = 0; op < std::size(binaries); op++) {
    const Binary& f = binaries[op];
    const bool power = op + 1 == std::size(binaries);
    title = std::string(f.name) + " of type " + std::to_string(static_cast<int>(kType<T>));
    for (const std::vector<int64_t>& shape : shapes()) {
      Elements<T> a(shape, true, power ? 0 : low, power ? 4 : high), b(shape, true, power ? 0 : low, power ? 4 : high);
      Elements<T> y(shape, false);
      for (int64_t i = 0; i < b.memory.size() && op == 3; i++) b.memory[i] = b.memory[i] == 0 ? 1 : b.memory[i];
      if (!numbers_alone) a.memory[numbers.below(a.memory.size())] = static_cast<T>(kNaN);
      const Doubles want = expected(y, [&](const std::vector<int64_t>& index) {
        return stored<T>(f.function(static_cast<double>(a.at(index)), static_cast<double>(b.at(index))));
      });
      run(binary, Packed() << static_cast<double>(op) << a.view() << b.view() << y.view(), {y.memory});
      close("values", y.memory, want, numbers_alone ? 0 : 1e-6);
    }
  }
}

template <typename T>
void test_compare_of(double low, double high) {
  for (int op = 0; op < 3; op++) {
    title = std::string(op == 0 ? "eq" : op == 1 ? "lt" : "le") + " of type " + std::to_string(static_cast<int>(kType<T>));
    for (const std::vector<int64_t>& shape : shapes()) {
      Elements<T> a(shape, true, low, high), b(shape, true, low, high);
      Elements<uint8_t> y(shape, false);
      for (int64_t i = 0; i < a.memory.size(); i++) a.memory[i] = static_cast<T>(static_cast<int>(a.memory[i]));
      for (int64_t i = 0; i < b.memory.size(); i++) b.memory[i] = static_cast<T>(static_cast<int>(b.memory[i]));
      if (kType<T> == DType::f32) a.memory[numbers.below(a.memory.size())] = static_cast<T>(kNaN);
      const Doubles want = expected(y, [&](const std::vector<int64_t>& index) {
        const T l = a.at(index), r = b.at(index);
        return op == 0 ? l == r : op == 1 ? l < r : l <= r;
      });
      run(compare, Packed() << op << a.view() << b.view() << y.view(), {y.memory});
      close("values", y.memory, want, 0);
    }
  }
}

template <typename T>
void test_where_of() {
  title = "where of " + std::to_string(sizeof(T)) + " bytes";
  for (const std::vector<int64_t>& shape : shapes()) {
    Elements<uint8_t> condition(shape, true, 0, 3);
    Elements<T> a(shape, true, 0, 200), b(shape, true, 0, 200), y(shape, false);
    const Doubles want = expected(y, [&](const std::vector<int64_t>& index) {
      return static_cast<double>(condition.at(index) ? a.at(index) : b.at(index));
    });
    run(where, Packed() << condition.view() << a.view() << b.view() << y.view(), {y.memory});
    close("values", y.memory, want, 0);
  }
}

/// A number of a type, from memory and back; halves are bits.
double number_of(DType dtype, const char* at) {
  switch (dtype) {
    case DType::f32:
      return static_cast<double>(*reinterpret_cast<const float*>(at));
    case DType::bf16:
      return static_cast<double>(static_cast<float>(*reinterpret_cast<const Bf16*>(at)));
    case DType::f16:
      return static_cast<double>(static_cast<float>(*reinterpret_cast<const F16*>(at)));
    case DType::i32:
      return *reinterpret_cast<const int32_t*>(at);
    case DType::u8:
      return *reinterpret_cast<const uint8_t*>(at);
  }
  return 0;
}

/// What a number becomes: rounded to the nearest, or, in whole numbers, cut off and taken modulo their range.
double converted(DType to, double x) {
  if (to == DType::f32) return static_cast<double>(static_cast<float>(x));
  if (to == DType::bf16) return static_cast<double>(static_cast<float>(Bf16::from(static_cast<float>(x))));
  if (to == DType::f16) return static_cast<double>(static_cast<float>(F16::from(static_cast<float>(x))));
  if (!std::isfinite(x)) return 0;
  const double range = to == DType::i32 ? 0x1p32 : 256;
  const double rest = std::trunc(x) - range * std::floor(std::trunc(x) / range);
  return to == DType::i32 && rest >= 0x1p31 ? rest - range : rest;
}

const DType types[] = {DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8};

/// Bytes that hold elements of any type, in a layout.
struct Any {
  DType dtype;
  Layout layout;
  Array<uint8_t> memory;

  Any(DType type, const std::vector<int64_t>& shape, bool repeats)
      : dtype(type), layout(shape, repeats), memory((layout.room + 3) * static_cast<int64_t>(bytes_of(type))) {}

  /// The fourth element is the first of the view.
  char* at(const std::vector<int64_t>& index) const {
    return memory.data() + (3 + offset(index, layout.strides)) * static_cast<int64_t>(bytes_of(dtype));
  }
  View view() const {
    View v = memory.view(layout.shape, layout.strides);
    v.data = memory.data() + 3 * bytes_of(dtype);
    v.dtype = dtype;
    return v;
  }
  void put(const std::vector<int64_t>& index, float x) {
    switch (dtype) {
      case DType::f32:
        *reinterpret_cast<float*>(at(index)) = x;
        break;
      case DType::bf16:
        *reinterpret_cast<Bf16*>(at(index)) = Bf16::from(x);
        break;
      case DType::f16:
        *reinterpret_cast<F16*>(at(index)) = F16::from(x);
        break;
      case DType::i32:
        *reinterpret_cast<int32_t*>(at(index)) = static_cast<int32_t>(numbers.word());
        break;
      case DType::u8:
        *reinterpret_cast<uint8_t*>(at(index)) = static_cast<uint8_t>(numbers.word());
        break;
    }
  }
};

void test_copy_of(DType from, DType to, const std::vector<int64_t>& shape) {
  title = "copy from type " + std::to_string(static_cast<int>(from)) + " to " + std::to_string(static_cast<int>(to));
  Any x(from, shape, true), y(to, shape, false);
  const float special[] = {NAN, INFINITY, -INFINITY, -0.0f, 1e-41f, 3e9f, -3e9f, 70000, 1e20f, -1.5f, 255.9f};
  each_index(shape, [&](const std::vector<int64_t>& index) {
    const bool ordinary = numbers.below(3) > 0;
    x.put(index, ordinary ? static_cast<float>(numbers.uniform(-300, 300)) : special[numbers.below(std::size(special))]);
  });
  const std::vector<char> before(y.memory.data(), y.memory.data() + y.memory.bytes());
  run(copy, Packed() << x.view() << y.view(), {y.memory});
  int wrong = 0;
  std::vector<char> rest(y.memory.data(), y.memory.data() + y.memory.bytes());
  each_index(shape, [&](const std::vector<int64_t>& index) {
    const double number = number_of(from, x.at(index)), want = converted(to, number), got = number_of(to, y.at(index));
    const bool same = std::isnan(want) ? std::isnan(got) : got == want && std::signbit(got) == std::signbit(want);
    if (!same && wrong++ == 0) check(false, "%g becomes %g, not %g", number, got, want);
    const size_t place = static_cast<size_t>(y.at(index) - y.memory.data());
    std::copy_n(before.begin() + static_cast<int64_t>(place), bytes_of(to), rest.begin() + static_cast<int64_t>(place));
  });
  check(rest == before, "writes between elements");
}

void test_copy() {
  const auto all = shapes();
  for (const DType from : types) {
    for (const DType to : types) {
      for (size_t i = 0; i < all.size(); i += 1 + static_cast<size_t>(numbers.below(3))) test_copy_of(from, to, all[i]);
    }
  }
}

void test_fill() {
  title = "fill";
  for (const DType type : types) {
    for (const double value : {0.0, 1.0, 200.7, -3.0, 3e9, 1e300, kNaN}) {
      for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {50001}, {5, 7, 3}}) {
        Any y(type, shape, false);
        run(fill, Packed() << y.view() << value, {y.memory});
        const double want = converted(type, value);
        int wrong = 0;
        each_index(shape, [&](const std::vector<int64_t>& index) {
          const double got = number_of(type, y.at(index));
          wrong += !(got == want || (std::isnan(got) && std::isnan(want)));
        });
        check(wrong == 0, "%d elements of type %d are not %g", wrong, static_cast<int>(type), value);
      }
    }
  }
  title = "iota";
  Array<int32_t> y(100003);
  run(iota, Packed() << y.view(), {y});
  for (int64_t i = 0; i < y.size(); i++) {
    if (y[i] != i) return check(false, "element %lld is %d", static_cast<long long>(i), y[i]);
  }
}

void test_binary() {
  test_binary_of<float>(-9, 9, false);
  test_binary_of<int32_t>(-9000, 9000, true);
  test_binary_of<uint8_t>(0, 255, true);
  title = "whole numbers by 0";
  Array<int32_t> a(5, 1, 9), b(5), y(5);
  for (int64_t i = 0; i < 5; i++) b[i] = 0;
  run(binary, Packed() << 3 << a.view() << b.view() << y.view(), {y});
  close("quotients", y, Doubles(5, 0), 0);
}

void test_compare() {
  test_compare_of<float>(-3, 3);
  test_compare_of<int32_t>(-3, 3);
  test_compare_of<uint8_t>(0, 4);
}

void test_where() {
  test_where_of<float>();
  test_where_of<int32_t>();
  test_where_of<uint16_t>();
  test_where_of<uint8_t>();
}

}  // namespace
}  // namespace testing
}  // namespace diffmamba

int main() {
  using namespace diffmamba::testing;
  return finish({test_unary, test_binary, test_compare, test_where, test_copy, test_fill});
}
