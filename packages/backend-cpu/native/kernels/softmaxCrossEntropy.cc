// Cross-entropy of a softmax with class indices, forward and backward, row by row: the row is read for its maximum and
// again, from the cache, for the sum of exponentials.
// Knows rows of floats. Knows no reduction over rows.

#include <cmath>
#include <limits>

#include "../kernels.h"
#include "lanes.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// Targets are classes or `ignored`.
Error check_targets(const View& targets, int64_t classes, int64_t ignored) {
  const int32_t* const at = targets.as<int32_t>();
  for (int64_t row = 0; row < targets.size(); row++) {
    if (at[row] == ignored || (at[row] >= 0 && at[row] < classes)) continue;
    return fail(
        "target %lld of row %lld lies outside [0, %lld), the classes of logits, and is not ignoreIndex (%lld); map it to "
        "a class or to ignoreIndex.",
        static_cast<long long>(at[row]), static_cast<long long>(row), static_cast<long long>(classes),
        static_cast<long long>(ignored));
  }
  return nullptr;
}

/// The greatest of n floats; NaN may be passed over.
float greatest(const float* x, int64_t n) {
  const Vec lowest = splat(-std::numeric_limits<float>::infinity());
  Chains best(lowest[0]);
  each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
    best[chain] = max(best[chain], lanes.keep(lanes.load(x + i), lowest));
  });
  const Vec all = max(max(best[0], best[1]), max(best[2], best[3]));
  float result = all[0];
  for (int lane = 1; lane < kLanes; lane++) result = all[lane] > result ? all[lane] : result;
  return result;
}

/// sum_i e^(x_i - shift)
float sum_of_exponentials(const float* x, int64_t n, float shift) {
  Chains sums(0);
  each_vector(n, [&](auto lanes, int64_t i, int chain) ALWAYS_INLINE {
    sums[chain] += lanes.keep(exp(lanes.load(x + i) - splat(shift)), Vec{});
  });
  return sums.sum();
}

}  // namespace

/// loss_r = log(sum_v e^(logits_rv)) - logits_(r, target_r)
Error softmaxCrossEntropy(Args args) {
  const View logits = args.view(), targets = args.view();
  const View losses = args.view(), log_sum_exp = args.view();
  const int64_t ignored = args.integer();
  const int64_t classes = logits.shape[logits.rank - 1], pitch = logits.pitch(1);
  if (const Error error = check_targets(targets, classes, ignored)) return error;
  parallel_for(targets.size(), 1 + kPieceElements / classes, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* const x = logits.as<float>() + row * pitch;
      const int32_t target = targets.as<int32_t>()[row];
      const float shift = greatest(x, classes);
      const double log_sum = std::log(static_cast<double>(sum_of_exponentials(x, classes, shift)));
      log_sum_exp.as<float>()[row] = static_cast<float>(shift + log_sum);
      losses.as<float>()[row] = target == ignored ? 0.0f : static_cast<float>(log_sum - (x[target] - shift));
    }
  });
  return nullptr;
}

/// dlogits_rv = dlosses_r (e^(logits_rv - logSumExp_r) - [v = target_r])
Error softmaxCrossEntropyBackward(Args args) {
  const View logits = args.view(), targets = args.view(), log_sum_exp = args.view(), dlosses = args.view();
  const View dlogits = args.view();
  const int64_t ignored = args.integer();
  const int64_t classes = logits.shape[logits.rank - 1], pitch = logits.pitch(1);
  if (const Error error = check_targets(targets, classes, ignored)) return error;
  if (!dlogits) return nullptr;
  const int64_t to_pitch = dlogits.pitch(1);
  parallel_for(targets.size(), 1 + kPieceElements / classes, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      float* const d = dlogits.as<float>() + row * to_pitch;
      const int32_t target = targets.as<int32_t>()[row];
      if (target == ignored || !dlosses) {
        memset(d, 0, static_cast<size_t>(classes) * sizeof(float));
        continue;
      }
      const float* const x = logits.as<float>() + row * pitch;
      const Vec shift = splat(log_sum_exp.as<float>()[row]), scale = splat(dlosses.as<float>()[row]);
      each_vector(classes, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
        lanes.store(d + i, scale * exp(lanes.load(x + i) - shift));
      });
      d[target] -= scale[0];
    }
  });
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
