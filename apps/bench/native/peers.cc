// Layer: apps/bench, native side. The machine's limits (multiply-adds in registers, memory read and copied) on any number of
// threads, and OpenBLAS opened at run time. Built for the machine it runs on.
// Knows arithmetic and addresses. Knows nothing of the project.

#include <dlfcn.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif
#include <node_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));

/// Independent chains: more than the latency of a multiply-add times the number that begin in a cycle; with the two
/// constants they fit in sixteen registers.
constexpr int kChains = 12;

/// `body(0)` to `body(threads - 1)`, each on a thread of its own, the first on this one.
template <typename Body>
void on_threads(int threads, Body body) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++) others.emplace_back(body, i);
  body(0);
  for (std::thread& other : others) other.join();
}

float total_of(const Vec& sum) {
  float total = 0;
  for (int i = 0; i < kLanes; i++) total += sum[i];
  return total;
}

/// `rounds` multiply-adds in each chain and lane. All go to y / (1 - x): none overflows or underflows.
float chains(int64_t rounds) {
  Vec chain[kChains];
  for (int i = 0; i < kChains; i++) chain[i] = Vec{} + 0.1f * static_cast<float>(i);
  const Vec x = Vec{} + 0.999f, y = Vec{} + 0.001f;
  for (int64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) chain[i] = chain[i] * x + y;
  }
  Vec sum{};
  for (const Vec& each : chain) sum += each;
  return total_of(sum);
}

/// Places that are read in turns: four streams are what a core of today prefetches best.
constexpr int kStreams = 4;

/// The sum of the floats of `from`, but for a few at the end: every byte is loaded once.
float sum_of(const char* from, size_t bytes) {
  constexpr size_t kStep = 64;
  constexpr int kVectors = kStep / sizeof(Vec);
  const size_t stream = bytes / kStreams / kStep * kStep;
  Vec sums[kStreams][kVectors] = {};
  for (size_t at = 0; at < stream; at += kStep) {
    for (int s = 0; s < kStreams; s++) {
      const Vec* const line = reinterpret_cast<const Vec*>(from + s * stream + at);
      for (int v = 0; v < kVectors; v++) sums[s][v] += line[v];
    }
  }
  Vec sum{};
  for (const auto& one : sums) {
    for (const Vec& each : one) sum += each;
  }
  return total_of(sum);
}

/// A copy past the caches: a store need not read the line that it overwrites. As memcpy where there are no such stores.
void stream(char* to, const char* from, size_t bytes) {
  size_t at = 0;
#if defined(__AVX__)
  for (; at + 32 <= bytes; at += 32) {
    _mm256_stream_ps(reinterpret_cast<float*>(to + at), _mm256_load_ps(reinterpret_cast<const float*>(from + at)));
  }
  _mm_sfence();
#endif
  memcpy(to + at, from + at, bytes - at);
}

struct Range {
  size_t begin, end;
};

/// The part of thread `i`, in whole cache lines.
Range part(size_t bytes, int i, int threads) {
  const size_t lines = bytes / 64;
  const auto edge = [&](int n) { return n == threads ? bytes : lines * n / threads * 64; };
  return {edge(i), edge(i + 1)};
}

struct Call {
  napi_env env;
  napi_value values[10];
  size_t count = 10;
  Call(napi_env env, napi_callback_info info) : env(env) {
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }

  int64_t integer(size_t i) const {
    int64_t x = 0;
    if (i < count) napi_get_value_int64(env, values[i], &x);
    return x;
  }

  bool flag(size_t i) const {
    bool x = false;
    if (i < count) napi_get_value_bool(env, values[i], &x);
    return x;
  }

  /// The elements of a Float32Array.
  float* floats(size_t i, size_t* bytes = nullptr) const {
    void* data = nullptr;
    size_t elements = 0;
    napi_typedarray_type type;
    napi_get_typedarray_info(env, values[i], &type, &elements, &data, nullptr, nullptr);
    if (bytes != nullptr) *bytes = elements * sizeof(float);
    return static_cast<float*>(data);
  }
};

napi_value number(napi_env env, double x) {
  napi_value value;
  napi_create_double(env, x, &value);
  return value;
}

/// aligned(bytes) -> ArrayBuffer at the start of a page, so that no peer is slowed down by where its operands lie.
napi_value aligned(napi_env env, napi_callback_info info) {
  const size_t bytes = (static_cast<size_t>(Call(env, info).integer(0)) + 4095) / 4096 * 4096;
  void* const memory = aligned_alloc(4096, bytes);
  napi_value buffer;
  const auto release = [](napi_env, void* data, void*) { free(data); };
  if (memory == nullptr || napi_create_external_arraybuffer(env, memory, bytes, release, nullptr, &buffer) != napi_ok) {
    free(memory);
    napi_throw_error(env, nullptr, "no memory for an operand");
    return nullptr;
  }
  memset(memory, 0, bytes);
  return buffer;
}

/// multiplyAdd(rounds, threads) -> a number that depends on all of them.
napi_value multiply_add(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  const int64_t rounds = call.integer(0);
  const int threads = static_cast<int>(call.integer(1));
  std::vector<float> sums(threads);
  on_threads(threads, [&](int i) { sums[i] = chains(rounds); });
  float total = 0;
  for (const float sum : sums) total += sum;
  return number(env, total);
}

/// read(Float32Array, times, threads) -> the sum.
napi_value read(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  size_t bytes = 0;
  const char* const from = reinterpret_cast<const char*>(call.floats(0, &bytes));
  const int64_t times = call.integer(1);
  const int threads = static_cast<int>(call.integer(2));
  std::vector<float> sums(threads);
  on_threads(threads, [&](int i) {
    const Range range = part(bytes, i, threads);
    float sum = 0;
    for (int64_t n = 0; n < times; n++) sum += sum_of(from + range.begin, range.end - range.begin);
    sums[i] = sum;
  });
  float total = 0;
  for (const float sum : sums) total += sum;
  return number(env, total);
}

/// copy(to, from, times, threads, pastCaches)
napi_value copy(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  size_t bytes = 0;
  char* const to = reinterpret_cast<char*>(call.floats(0));
  const char* const from = reinterpret_cast<const char*>(call.floats(1, &bytes));
  const int64_t times = call.integer(2);
  const int threads = static_cast<int>(call.integer(3));
  const bool past_caches = call.flag(4);
  on_threads(threads, [&](int i) {
    const Range range = part(bytes, i, threads);
    const size_t size = range.end - range.begin;
    for (int64_t n = 0; n < times; n++) {
      if (past_caches) {
        stream(to + range.begin, from + range.begin, size);
      } else {
        memcpy(to + range.begin, from + range.begin, size);
      }
    }
  });
  return nullptr;
}

/// The part of OpenBLAS that is called: its C interface, with rows one after the other.
struct Blas {
  void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float* a, int lda,
                const float* b, int ldb, float beta, float* c, int ldc);
  void (*set_threads)(int);
  int threads = 0;
} blas;

/// openBlas(path) -> what the library says of itself. Throws where it is not there.
napi_value open_blas(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  char path[4096];
  size_t length = 0;
  napi_get_value_string_utf8(env, call.values[0], path, sizeof path, &length);
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    napi_throw_error(env, nullptr, dlerror());
    return nullptr;
  }
  const auto config = reinterpret_cast<const char* (*)()>(dlsym(library, "openblas_get_config"));
  blas.sgemm = reinterpret_cast<decltype(blas.sgemm)>(dlsym(library, "cblas_sgemm"));
  blas.set_threads = reinterpret_cast<decltype(blas.set_threads)>(dlsym(library, "openblas_set_num_threads"));
  if (config == nullptr || blas.sgemm == nullptr || blas.set_threads == nullptr) {
    napi_throw_error(env, nullptr, (std::string(path) + " is not OpenBLAS").c_str());
    return nullptr;
  }
  napi_value text;
  napi_create_string_utf8(env, config(), NAPI_AUTO_LENGTH, &text);
  return text;
}

/// sgemm(transA, transB, m, n, k, a, b, c, threads): c = a b, all in rows.
napi_value sgemm(napi_env env, napi_callback_info info) {
  constexpr int kRows = 101, kPlain = 111, kTransposed = 112;
  const Call call(env, info);
  const bool trans_a = call.flag(0), trans_b = call.flag(1);
  const int m = static_cast<int>(call.integer(2)), n = static_cast<int>(call.integer(3));
  const int k = static_cast<int>(call.integer(4)), threads = static_cast<int>(call.integer(8));
  if (threads != blas.threads) blas.set_threads(threads);
  blas.threads = threads;
  blas.sgemm(kRows, trans_a ? kTransposed : kPlain, trans_b ? kTransposed : kPlain, m, n, k, 1.0f, call.floats(5),
             trans_a ? m : k, call.floats(6), trans_b ? k : n, 0.0f, call.floats(7), n);
  return nullptr;
}

napi_value init(napi_env env, napi_value exports) {
  const struct {
    const char* name;
    napi_callback call;
  } functions[] = {{"aligned", aligned}, {"multiplyAdd", multiply_add}, {"read", read},
                   {"copy", copy},       {"openBlas", open_blas},       {"sgemm", sgemm}};
  for (const auto& function : functions) {
    napi_value value;
    napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.call, nullptr, &value);
    napi_set_named_property(env, exports, function.name, value);
  }
  const napi_value sizes[] = {number(env, kLanes), number(env, kChains)};
  napi_set_named_property(env, exports, "lanes", sizes[0]);
  napi_set_named_property(env, exports, "chains", sizes[1]);
  return exports;
}

}  // namespace

NAPI_MODULE(diffmamba_bench_peers, init)
