// One AdamW step and the global norm over lists of tensors, each list as if it were one long vector: one pass, cut by
// size alone.
// Knows contiguous floats. Knows no schedule and no parameter group.

#include <cmath>

#include "../half.h"
#include "../kernels.h"
#include "lanes.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// A stretch of a list: part `piece` of one of its tensors.
struct Stretch {
  int64_t tensor, begin, end;
};

/// Cuts tensors into stretches of at most kPieceElements. Null where there is no memory.
template <typename Tensor>
const Stretch* cut(const Tensor* tensors, int64_t count, int64_t& stretches) {
  stretches = 0;
  for (int64_t k = 0; k < count; k++) stretches += (tensors[k].size + kPieceElements - 1) / kPieceElements;
  Stretch* const list = scratch<Stretch>(stretches + 1);
  if (list == nullptr) return nullptr;
  int64_t at = 0;
  for (int64_t k = 0; k < count; k++) {
    for (int64_t begin = 0; begin < tensors[k].size; begin += kPieceElements) {
      const int64_t end = begin + kPieceElements < tensors[k].size ? begin + kPieceElements : tensors[k].size;
      list[at++] = {k, begin, end};
    }
  }
  return list;
}

struct Gradient {
  const void* data;
  int64_t size;
  /// The sum of squares of elements begin .. end.
  double (*squares)(const void* data, int64_t begin, int64_t end);
};

struct Step;
struct Parameter;
using Update = void (*)(const Parameter& parameter, int64_t begin, int64_t end, const Step& step);

/// Rounds elements begin .. end of a parameter into its copy.
using Copy = void (*)(void* to, const float* from, int64_t begin, int64_t end);

/// Values and gradients are of any float, moments f32. A value of f32 may have a copy.
struct Parameter {
  void* value;
  const void* gradient;
  float* m;
  float* v;
  int64_t size;
  double weight_decay;
  Update update;
  void* copy;
  Copy round;
};

/// The numbers of one step that all parameters share; see the definition, packages/tensor/src/reference/adamw.ts.
struct Step {
  float beta1, other1, beta2, other2, scale, step_size, inverse_root, eps;
  double lr;
};

float narrow(float x, const float*) { return x; }
template <typename Half>
Half narrow(float x, const Half*) {
  return Half::from(x);
}

template <typename Value, typename Slope>
void update(const Parameter& parameter, int64_t begin, int64_t end, const Step& step) {
  Value* const __restrict p = static_cast<Value*>(parameter.value);
  const Slope* const __restrict gradient = static_cast<const Slope*>(parameter.gradient);
  float* const __restrict m = parameter.m;
  float* const __restrict v = parameter.v;
  const float decay = static_cast<float>(step.lr * parameter.weight_decay);
  const Step s = step;
  for (int64_t i = begin; i < end; i++) {
    const float g = s.scale * static_cast<float>(gradient[i]), value = static_cast<float>(p[i]);
    m[i] = s.beta1 * m[i] + s.other1 * g;
    v[i] = s.beta2 * v[i] + s.other2 * g * g;
    p[i] = narrow(value - (decay * value + s.step_size * m[i] / (std::sqrt(v[i]) * s.inverse_root + s.eps)), p);
  }
}

template <typename Value>
Update update_of(DType gradient) {
  switch (gradient) {
    case DType::f32:
      return update<Value, float>;
    case DType::bf16:
      return update<Value, Bf16>;
    case DType::f16:
      return update<Value, F16>;
    default:
      return nullptr;
  }
}

/// Null for types that are no floats.
Update update_of(DType value, DType gradient) {
  switch (value) {
    case DType::f32:
      return update_of<float>(gradient);
    case DType::bf16:
      return update_of<Bf16>(gradient);
    case DType::f16:
      return update_of<F16>(gradient);
    default:
      return nullptr;
  }
}

template <typename Half>
void round_to(void* to, const float* from, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) static_cast<Half*>(to)[i] = Half::from(from[i]);
}

/// Squares are summed as doubles, which no f32 overflows.
double sum_of_squares(const float* x, int64_t n) {
  typename VectorOf<double, kWide>::Type sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kWide <= n; i += kChains * kWide) {
    for (int chain = 0; chain < kChains; chain++) {
      const auto v = load_wide<double>(x + i + chain * kWide);
      sums[chain] += v * v;
    }
  }
  double total = 0;
  for (; i < n; i++) total += static_cast<double>(x[i]) * x[i];
  const auto all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int lane = 0; lane < kWide; lane++) total += all[lane];
  return total;
}

double squares_of_floats(const void* data, int64_t begin, int64_t end) {
  return sum_of_squares(static_cast<const float*>(data) + begin, end - begin);
}

template <typename Half>
double squares_of_halves(const void* data, int64_t begin, int64_t end) {
  constexpr int64_t kRun = 512;
  float wide[kRun];
  double total = 0;
  for (int64_t i = begin; i < end; i += kRun) {
    const int64_t n = end - i < kRun ? end - i : kRun;
    for (int64_t k = 0; k < n; k++) wide[k] = static_cast<float>(static_cast<const Half*>(data)[i + k]);
    total += sum_of_squares(wide, n);
  }
  return total;
}

Error no_memory() { return fail("out of memory for the list of tensors"); }

}  // namespace

Error globalNorm(Args args) {
  const int64_t count = args.integer();
  Gradient* const gradients = scratch<Gradient>(count + 1);
  if (gradients == nullptr) return no_memory();
  for (int64_t k = 0; k < count; k++) {
    const View view = args.view();
    const auto squares = view.dtype == DType::f32    ? squares_of_floats
                         : view.dtype == DType::bf16 ? squares_of_halves<Bf16>
                         : view.dtype == DType::f16  ? squares_of_halves<F16>
                                                     : nullptr;
    if (squares == nullptr) return fail("an element type that this kernel does not take");
    gradients[k] = {view.data, view.size(), squares};
  }
  const View out = args.view();
  int64_t stretches;
  const Stretch* const list = cut(gradients, count, stretches);
  double* const sums = scratch<double>(stretches + 1);
  if (list == nullptr || sums == nullptr) return no_memory();
  parallel_for(stretches, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Gradient& gradient = gradients[list[i].tensor];
      sums[i] = gradient.squares(gradient.data, list[i].begin, list[i].end);
    }
  });
  double total = 0;
  for (int64_t i = 0; i < stretches; i++) total += sums[i];
  *out.as<float>() = static_cast<float>(std::sqrt(total));
  return nullptr;
}

/// arXiv 1711.05101, algorithm 2.
Error adamw(Args args) {
  const View lr = args.view(), step = args.view(), scale = args.view(), norm = args.view();
  const double beta1 = args.number(), beta2 = args.number(), eps = args.number();
  const int64_t count = args.integer();
  if (!std::isfinite(*norm.as<float>())) return nullptr;
  Parameter* const parameters = scratch<Parameter>(count + 1);
  if (parameters == nullptr) return no_memory();
  for (int64_t k = 0; k < count; k++) {
    const View value = args.view(), gradient = args.view(), m = args.view(), v = args.view(), copy = args.view();
    const double weight_decay = args.number();
    const Update update = update_of(value.dtype, gradient.dtype);
    if (update == nullptr || m.dtype != DType::f32 || v.dtype != DType::f32) {
      return fail("an element type that this kernel does not take");
    }
    const Copy round = copy.dtype == DType::bf16 ? round_to<Bf16> : copy.dtype == DType::f16 ? round_to<F16> : nullptr;
    if (copy && (round == nullptr || value.dtype != DType::f32)) return fail("a copy that is not bf16 or f16, of a parameter of f32");
    parameters[k] = {value.data, gradient.data, m.as<float>(), v.as<float>(), value.size(), weight_decay, update, copy.data, round};
  }
  int64_t stretches;
  const Stretch* const list = cut(parameters, count, stretches);
  if (list == nullptr) return no_memory();
  const double t = ++*step.as<int32_t>();
  const double rate = *lr.as<float>();
  const Step numbers{static_cast<float>(beta1),
                     static_cast<float>(1 - beta1),
                     static_cast<float>(beta2),
                     static_cast<float>(1 - beta2),
                     *scale.as<float>(),
                     static_cast<float>(rate / (1 - std::pow(beta1, t))),
                     static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, t))),
                     static_cast<float>(eps),
                     rate};
  parallel_for(stretches, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Parameter& parameter = parameters[list[i].tensor];
      parameter.update(parameter, list[i].begin, list[i].end, numbers);
      if (parameter.copy != nullptr) {
        parameter.round(parameter.copy, static_cast<const float*>(parameter.value), list[i].begin, list[i].end);
      }
    }
  });
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
