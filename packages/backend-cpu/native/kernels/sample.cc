// Draws a token from each row of logits by a counter-based random number, after the filters of top-k, top-p and min-p. The least
// logit that stays is found byte by byte, by counts or weights of the values that share the bytes before; nothing is sorted.
// Knows rows of floats. Knows no model.

#include <cmath>
#include <limits>

#include "../half.h"
#include "../kernels.h"
#include "lanes.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// The first word of a block of Philox 4x32-10 with counter (0, 0, step, 0).
uint32_t first_word(uint32_t step, uint32_t low, uint32_t high) {
  uint32_t c0 = 0, c1 = 0, c2 = step, c3 = 0;
  for (int round = 0; round < 10; round++) {
    const uint64_t a = static_cast<uint64_t>(0xd2511f53u) * c0, b = static_cast<uint64_t>(0xcd9e8d57u) * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ low;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ high;
    c3 = static_cast<uint32_t>(a);
    low += 0x9e3779b9u;
    high += 0xbb67ae85u;
  }
  return c0;
}

/// Floats as whole numbers of the same order.
uint32_t key_of(float x) {
  const uint32_t bits = bits_of(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

float value_of(uint32_t key) { return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

/// The greatest value such that those of at least it, down to `least`, have a sum of `weight(i)` that reaches `wanted`.
template <typename Weight>
float threshold(const float* z, int64_t n, float least, double wanted, const Weight& weight) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    double buckets[256] = {};
    for (int64_t i = 0; i < n; i++) {
      const uint32_t key = key_of(z[i]);
      if (!(z[i] >= least) || (shift < 24 && key >> (shift + 8) != prefix)) continue;
      buckets[key >> shift & 255] += weight(i);
    }
    int bucket = 255, lowest = 255;
    for (; bucket >= 0; bucket--) {
      if (buckets[bucket] == 0) continue;
      lowest = bucket;
      if (buckets[bucket] >= wanted) break;
      wanted -= buckets[bucket];
    }
    prefix = prefix << 8 | static_cast<uint32_t>(bucket < 0 ? lowest : bucket);
  }
  return value_of(prefix);
}

struct Options {
  double temperature;
  int64_t top_k;
  double top_p, min_p;
};

/// What a row of n logits gives: the token and ln of its probability.
struct Drawn {
  int32_t token;
  float logprob;
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// `z` and `weights` have room for a row. `word` is the random number.
Drawn draw(const float* x, int64_t n, const Options& options, uint32_t word, float* z, float* weights) {
  const float nan = __builtin_nanf("");
  float top = -kInfinity;
  int64_t best = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!(x[i] < kInfinity)) return {-1, nan};
    if (x[i] > top) {
      top = x[i];
      best = i;
    }
  }
  if (top == -kInfinity) return {-1, nan};
  const auto weigh = [&](const float* from, float shift) {
    each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      lanes.store(weights + i, exp(lanes.load(from + i) - splat(shift)));
    });
  };
  weigh(x, top);
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += static_cast<double>(weights[i]);
  const auto drawn = [&](int64_t token) {
    return Drawn{static_cast<int32_t>(token), static_cast<float>(x[token] - top - std::log(total))};
  };
  if (options.temperature == 0) return drawn(best);

  const float temperature = static_cast<float>(options.temperature), most = top / temperature;
  for (int64_t i = 0; i < n; i++) z[i] = x[i] / temperature;
  weigh(z, most);
  float least = -kInfinity;
  if (options.top_k > 0 && options.top_k < n) {
    least = threshold(z, n, least, static_cast<double>(options.top_k), [](int64_t) { return 1.0; });
  }
  if (options.top_p < 1) {
    double kept = 0;
    for (int64_t i = 0; i < n; i++) kept += z[i] >= least ? static_cast<double>(weights[i]) : 0;
    least = threshold(z, n, least, options.top_p * kept, [&](int64_t i) { return static_cast<double>(weights[i]); });
  }
  if (options.min_p > 0) {
    const float floor = static_cast<float>(most + std::log(options.min_p));
    least = floor > least ? floor : least;
  }
  double kept = 0;
  for (int64_t i = 0; i < n; i++) kept += z[i] >= least ? static_cast<double>(weights[i]) : 0;
  const double limit = static_cast<double>(word >> 8) * 0x1p-24 * kept;
  double sum = 0;
  int64_t last = best;
  for (int64_t i = 0; i < n; i++) {
    if (!(z[i] >= least) || z[i] == -kInfinity) continue;
    sum += static_cast<double>(weights[i]);
    last = i;
    if (sum > limit) break;
  }
  return drawn(last);
}

}  // namespace

/// See packages/tensor/src/reference/sample.ts.
Error sample(Args args) {
  const View logits = args.view(), keys = args.view(), positions = args.view(), tokens = args.view(), logprobs = args.view();
  Options options;
  options.temperature = args.number();
  options.top_k = args.integer();
  options.top_p = args.number();
  options.min_p = args.number();
  const int64_t rows = logits.shape[0], n = logits.shape[1], pitch = logits.pitch(1);
  const int64_t room = (n + kLanes - 1) / kLanes * kLanes;
  float* const memory = scratch<float>(2 * rows * room + 1);
  if (memory == nullptr) return fail("out of memory for %lld rows of logits", static_cast<long long>(rows));
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const uint32_t* const key = keys.as<uint32_t>() + 2 * row;
      const uint32_t word = first_word(positions.as<uint32_t>()[row], key[0], key[1]);
      float* const own = memory + 2 * row * room;
      const Drawn drawn = draw(logits.as<float>() + row * pitch, n, options, word, own, own + room);
      tokens.as<int32_t>()[row] = drawn.token;
      logprobs.as<float>()[row] = drawn.logprob;
    }
  });
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
