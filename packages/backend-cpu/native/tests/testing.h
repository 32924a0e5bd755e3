// What the tests of kernels share: arrays with a fence around them, views, packed arguments, numbers that look random, a
// call that runs a kernel with 1, 2 and 3 threads and sees to it that all results have the same bits, and one that runs
// it with too little memory.
// Knows how arguments cross. Knows no kernel.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "../kernels.h"
#include "../memory.h"
#include "../pool.h"

namespace diffmamba {

// The addon has its own; the tests are linked without it.
Error fail(const char* format, ...) {
  thread_local char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return message;
}

namespace testing {

/// What kernels ask for goes through here, so that a test can refuse it: so many requests of this thread are served, and
/// the next one is not.
struct Supply {
  static constexpr int kEndless = -1;
  int left = kEndless;
  bool refused = false;

  bool serves() {
    if (left > 0) left--;
    refused = refused || left == 0;
    return left != 0;
  }
};

inline thread_local Supply supply;

inline int failures = 0;
inline int checks = 0;
inline std::string title;

__attribute__((format(printf, 2, 3))) inline void check(bool passed, const char* format, ...) {
  checks++;
  if (passed) return;
  failures++;
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s: ", title.c_str());
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
}

/// The same numbers in every run (xorshift).
struct Numbers {
  uint64_t state = 0x9e3779b97f4a7c15;
  uint64_t word() {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(word() >> 11) % n; }
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(word() >> 11) * 0x1p-53; }
};

inline Numbers numbers;

template <typename T>
constexpr DType kType = DType::f32;
template <>
inline constexpr DType kType<int32_t> = DType::i32;
template <>
inline constexpr DType kType<uint8_t> = DType::u8;
template <>
inline constexpr DType kType<uint16_t> = DType::bf16;

/// Memory as the addon gives it: aligned, with 64 bytes more that no kernel may write. Holds no number at first.
template <typename T>
class Array {
 public:
  explicit Array(int64_t size) : size_(size), bytes_(static_cast<size_t>(size) * sizeof(T)) {
    memory_ = static_cast<char*>(allocate_aligned(bytes_ + 64));
    memset(memory_, 0xff, bytes_);
    memset(memory_ + bytes_, kFence, 64);
  }
  /// Numbers between two others.
  Array(int64_t size, double low, double high) : Array(size) {
    for (int64_t i = 0; i < size; i++) (*this)[i] = static_cast<T>(numbers.uniform(low, high));
  }
  Array(const Array&) = delete;
  ~Array() {
    bool whole = true;
    for (size_t i = 0; i < 64; i++) whole = whole && memory_[bytes_ + i] == kFence;
    check(whole, "writes past the end");
    free_aligned(memory_);
  }

  T& operator[](int64_t i) { return reinterpret_cast<T*>(memory_)[i]; }
  const T& operator[](int64_t i) const { return reinterpret_cast<const T*>(memory_)[i]; }
  int64_t size() const { return size_; }
  char* data() const { return memory_; }
  size_t bytes() const { return bytes_; }

  View view(std::vector<int64_t> shape, std::vector<int64_t> strides = {}, int64_t offset = 0) const {
    View v;
    v.data = memory_ + static_cast<size_t>(offset) * sizeof(T);
    v.dtype = kType<T>;
    v.rank = static_cast<int>(shape.size());
    int64_t stride = 1;
    for (int i = v.rank - 1; i >= 0; i--) {
      const size_t at = static_cast<size_t>(i);
      v.shape[i] = shape[at];
      v.strides[i] = strides.empty() ? stride : strides[at];
      stride *= shape[at];
    }
    for (int i = v.rank; i < kMaxRank; i++) v.shape[i] = 1;
    return v;
  }
  View view() const { return view({size_}); }

 private:
  static constexpr char kFence = 0x5a;
  int64_t size_;
  size_t bytes_;
  char* memory_;
};

/// Arguments as src/pack.ts packs them.
struct Packed {
  std::vector<double> doubles;
  Packed& operator<<(const View& v) {
    doubles.push_back(static_cast<double>(reinterpret_cast<uintptr_t>(v.data)));
    doubles.push_back(static_cast<int>(v.dtype));
    doubles.push_back(v.rank);
    for (const int64_t size : v.shape) doubles.push_back(static_cast<double>(size));
    for (const int64_t stride : v.strides) doubles.push_back(static_cast<double>(stride));
    return *this;
  }
  Packed& operator<<(double x) {
    doubles.push_back(x);
    return *this;
  }
};

/// A stretch of memory that a kernel writes.
struct Written {
  char* data;
  size_t bytes;
  template <typename T>
  Written(const Array<T>& array) : data(array.data()), bytes(array.bytes()) {}
};

/// Outputs as they were, to run a kernel on them again, and to compare them.
class Saved {
 public:
  explicit Saved(const std::vector<Written>& written) : written_(written) {
    for (const Written& w : written) bytes_.emplace_back(w.data, w.data + w.bytes);
  }
  void restore() const {
    for (size_t i = 0; i < bytes_.size(); i++) memcpy(written_[i].data, bytes_[i].data(), bytes_[i].size());
  }
  void compare(const char* what) const {
    for (size_t i = 0; i < bytes_.size(); i++) {
      check(memcmp(written_[i].data, bytes_[i].data(), bytes_[i].size()) == 0, "%s: output %zu has other bits", what, i);
    }
  }

 private:
  const std::vector<Written>& written_;
  std::vector<std::vector<char>> bytes_;
};

/// A kernel that is refused memory, be it the first it asks for or the last, says so and ends; with all of it the result
/// is the same as ever. Each attempt has a thread of its own, which has kept nothing from earlier calls.
inline void starve(Kernel kernel, const Packed& packed, const Saved& before, const Saved& result) {
  bool refused = true;
  for (int served = 1; refused; served++) {
    before.restore();
    std::string said;
    std::thread([&] {
      supply.left = served;
      const Error error = kernel(Args(packed.doubles.data()));
      refused = supply.refused;
      said = error == nullptr ? "nothing" : error;
    }).join();
    const char* const expected = refused ? "out of memory" : "nothing";
    check(said.rfind(expected, 0) == 0, "request %d refused: says \"%s\"; expected \"%s\"", served, said.c_str(), expected);
  }
  result.compare("after too little memory");
}

/// Runs a kernel with 1, 2 and 3 threads from the same state; the results must have the same bits. The first few times
/// also with too little memory.
inline void run(Kernel kernel, const Packed& packed, const std::vector<Written>& written) {
  static std::map<Kernel, int> starved;
  const Saved before(written);
  const auto attempt = [&](int threads) {
    before.restore();
    pool_limit(threads);
    const Error error = kernel(Args(packed.doubles.data()));
    check(error == nullptr, "fails: %s", error);
  };
  attempt(1);
  const Saved result(written);
  attempt(2);
  result.compare("2 threads");
  attempt(3);
  result.compare("3 threads");
  if (starved[kernel]++ < 30) starve(kernel, packed, before, result);
}

/// The kernel must fail with words that contain `part`.
inline void fails(Kernel kernel, const Packed& packed, const char* part) {
  const Error error = kernel(Args(packed.doubles.data()));
  check(error != nullptr && strstr(error, part) != nullptr, "says \"%s\"; expected \"%s\"", error ? error : "nothing", part);
}

/// The relative RMS error of x against plain loops in doubles is at most `limit`.
template <typename T>
void close(const char* what, const Array<T>& x, const std::vector<double>& expected, double limit) {
  double difference = 0, total = 0;
  check(static_cast<size_t>(x.size()) == expected.size(), "%s: the test compares other sizes", what);
  for (int64_t i = 0; i < x.size(); i++) {
    const double wanted = expected[static_cast<size_t>(i)], d = static_cast<double>(x[i]) - wanted;
    if (std::isnan(wanted) && std::isnan(static_cast<double>(x[i]))) continue;
    if (wanted == static_cast<double>(x[i])) continue;
    difference += d * d;
  }
  const double size = static_cast<double>(expected.size());
  for (const double wanted : expected) total += std::isfinite(wanted) ? wanted * wanted : 0;
  const double error = std::sqrt(difference / size) / std::fmax(std::sqrt(total / size), 1e-6);
  check(error <= limit, "%s: relative error %.3g is above %.3g", what, error, limit);
}

/// Starts three threads, runs the tests, and gives the exit status of the program.
inline int finish(const std::vector<void (*)()>& tests) {
  if (!pool_start(3)) {
    fprintf(stderr, "three threads cannot be started\n");
    return 1;
  }
  for (const auto test : tests) test();
  printf("%d of %d checks passed\n", checks - failures, checks);
  return failures == 0 ? 0 : 1;
}

}  // namespace testing
}  // namespace diffmamba

// Where the requests of memory.h end up; what is not refused is served as ever.
void* operator new(size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  if (!diffmamba::testing::supply.serves()) return nullptr;
  try {
    return operator new(bytes, alignment);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
