// Tests of the scans on a device: random data, memory that ends where it should, comparison of outputs, and timing with events.
// Knows CUDA's runtime. Knows no kernel.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#define CHECK(call)                                                                              \
  do {                                                                                           \
    const cudaError_t error_ = (call);                                                           \
    if (error_ != cudaSuccess) {                                                                 \
      std::printf("FAULT %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_)); \
      std::exit(1);                                                                              \
    }                                                                                            \
  } while (0)

typedef std::vector<double> Doubles;

struct Random {
  uint64_t state = 88172645463325252ull;
  double next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<double>(state >> 11) / 9007199254740992.0;
  }
  double between(double low, double high) { return low + (high - low) * next(); }
};

inline float to_float_host(float x) { return x; }
inline float to_float_host(__nv_bfloat16 x) { return __bfloat162float(x); }
inline float to_float_host(__half x) { return __half2float(x); }
template <typename T>
double as_double(T x) { return static_cast<double>(to_float_host(x)); }

template <typename T> T from_double(double x);
template <> inline float from_double<float>(double x) { return static_cast<float>(x); }
template <> inline __nv_bfloat16 from_double<__nv_bfloat16>(double x) { return __float2bfloat16(static_cast<float>(x)); }
template <> inline __half from_double<__half>(double x) { return __float2half(static_cast<float>(x)); }

/// Memory of a device with a mark at its end.
struct Memory {
  void* at = nullptr;
  size_t bytes = 0;
  explicit Memory(size_t n = 0) { resize(n); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(at); }
  void resize(size_t n) {
    cudaFree(at);
    at = nullptr;
    bytes = n;
    if (n == 0) return;
    CHECK(cudaMalloc(&at, n + 256));
    CHECK(cudaMemset(at, 0xff, n + 256));
  }
  bool intact() const {
    if (!at) return true;
    unsigned char mark[256];
    CHECK(cudaMemcpy(mark, static_cast<char*>(at) + bytes, 256, cudaMemcpyDeviceToHost));
    return std::all_of(mark, mark + 256, [](unsigned char c) { return c == 0xff; });
  }
  template <typename T>
  T* as() const { return static_cast<T*>(at); }
  template <typename T>
  void put(const std::vector<T>& from) {
    if (bytes != from.size() * sizeof(T)) resize(from.size() * sizeof(T));
    if (bytes) CHECK(cudaMemcpy(at, from.data(), bytes, cudaMemcpyHostToDevice));
  }
  template <typename T>
  std::vector<T> get() const {
    std::vector<T> out(bytes / sizeof(T));
    if (bytes) CHECK(cudaMemcpy(out.data(), at, bytes, cudaMemcpyDeviceToHost));
    return out;
  }
};

/// Floats on the device; null where `from` is empty.
inline float* put_floats(Memory& m, const Doubles& from) {
  if (from.empty()) return nullptr;
  m.put(std::vector<float>(from.begin(), from.end()));
  return m.as<float>();
}

/// A case's inputs to the device: rows and the gradient of y in T, the rest in f32.
template <typename T, typename Scan, typename Host>
void put_inputs(Scan& to, const Host& h) {
  const auto typed = [](Memory& m, const Doubles& from) {
    std::vector<T> v(from.size());
    for (size_t i = 0; i < from.size(); i++) v[i] = from_double<T>(from[i]);
    m.put(v);
  };
  typed(to.rows, h.rows);
  typed(to.dy, h.dy);
  put_floats(to.A, h.A);
  put_floats(to.D, h.D);
  put_floats(to.bias, h.bias);
  put_floats(to.initial, h.initial);
  put_floats(to.dfinal, h.dfinal);
  to.seq.put(h.seq);
  to.lengths.put(h.lengths);
}

struct Report {
  int faults = 0, checks = 0;
  double worst = 0;
  std::string line;
  /// Relative RMS error; says where the first element is that is far off.
  void compare(const std::string& what, const char* name, const Doubles& got, const Doubles& want, double tolerance) {
    checks++;
    double difference = 0, size = 0;
    for (size_t i = 0; i < want.size(); i++) {
      const double d = got[i] - want[i];
      difference += d * d;
      size += want[i] * want[i];
      if (std::isnan(got[i])) difference = NAN;
    }
    const double count = std::max<size_t>(want.size(), 1), rms = std::sqrt(size / count);
    const double error = rms < 1e-6 ? (std::sqrt(difference / count) < 1e-6 ? 0 : 1) : std::sqrt(difference / count) / rms;
    char text[64];
    std::snprintf(text, sizeof text, " %s %.1e", name, error);
    line += text;
    worst = std::max(worst, std::isnan(error) ? 1e9 : error / tolerance);
    if (got.size() == want.size() && error <= tolerance) return;
    faults++;
    size_t first = 0, bad = 0;
    for (size_t i = want.size(); i-- > 0;) {
      if (!(std::abs(got[i] - want[i]) <= 10 * tolerance * std::max(rms, 1e-6))) {
        first = i;
        bad++;
      }
    }
    std::printf("WRONG %s: %s error %.3e over %.1e, rms %.3e, size %zu; %zu far off, first at %zu: %.6g for %.6g\n", what.c_str(), name, error,
                tolerance, rms, want.size(), bad, first, want.empty() ? 0 : got[first], want.empty() ? 0 : want[first]);
  }
  void expect(bool holds, const std::string& what, const char* name) {
    checks++;
    if (holds) return;
    faults++;
    std::printf("WRONG %s: %s\n", what.c_str(), name);
  }
};

/// Milliseconds of a call, the median of five rounds.
inline double time_ms(const std::function<void(int)>& call, int calls = 12) {
  cudaEvent_t from, to;
  CHECK(cudaEventCreate(&from));
  CHECK(cudaEventCreate(&to));
  for (int i = 0; i < 3; i++) call(i);
  std::vector<double> times;
  for (int round = 0; round < 5; round++) {
    CHECK(cudaEventRecord(from));
    for (int i = 0; i < calls; i++) call(i);
    CHECK(cudaEventRecord(to));
    CHECK(cudaEventSynchronize(to));
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, from, to));
    times.push_back(ms / calls);
  }
  CHECK(cudaGetLastError());
  std::sort(times.begin(), times.end());
  return times[2];
}
