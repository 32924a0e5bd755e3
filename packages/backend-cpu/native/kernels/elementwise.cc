// Elementwise kernels: each function is a line of a table, one loop walks them all; vectors where memory is contiguous.
// Knows strided memory. Knows no shape rule and no gradient.

#include <cmath>

#include "../kernels.h"
#include "../simd.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

/// A function that vectors know, and one that only scalars do.
#define VECTOR_FUNCTION(name, vector, scalar)              \
  struct name {                                            \
    static constexpr bool kVector = true;                  \
    static Vec apply(Vec x) { return vector; }             \
    static float apply(float x) { return scalar; }         \
  };
#define SCALAR_FUNCTION(name, scalar)              \
  struct name {                                    \
    static constexpr bool kVector = false;         \
    static float apply(float x) { return scalar; } \
  };

VECTOR_FUNCTION(Neg, -x, -x)
SCALAR_FUNCTION(Abs, std::fabs(x))
SCALAR_FUNCTION(Sign, x > 0 ? 1.0f : x < 0 ? -1.0f : x)
VECTOR_FUNCTION(Exp, exp(x), exp(splat(x))[0])
SCALAR_FUNCTION(Log, std::log(x))
SCALAR_FUNCTION(Sqrt, std::sqrt(x))
SCALAR_FUNCTION(Rsqrt, 1.0f / std::sqrt(x))
VECTOR_FUNCTION(Square, x * x, x * x)
VECTOR_FUNCTION(Reciprocal, reciprocal(x), 1.0f / x)
VECTOR_FUNCTION(Sigmoid, sigmoid(x), sigmoid(splat(x))[0])
SCALAR_FUNCTION(Tanh, std::tanh(x))
SCALAR_FUNCTION(Softplus, std::fmax(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))))
VECTOR_FUNCTION(Silu, silu(x), silu(splat(x))[0])
SCALAR_FUNCTION(Erf, std::erf(x))

template <typename F>
Error run_unary(const View& x, const View& out) {
  const Runs<2> runs({&out, &x});
  const int64_t to_step = runs.step(0), from_step = runs.step(1);
  runs.each([&](const int64_t(&at)[2], int64_t n) {
    float* const to = out.as<float>() + at[0];
    const float* const from = x.as<float>() + at[1];
    int64_t i = 0;
    if constexpr (F::kVector) {
      if (to_step == 1 && from_step == 1) {
        for (; i + kLanes <= n; i += kLanes) store(to + i, F::apply(load(from + i)));
      }
    }
    for (; i < n; i++) to[i * to_step] = F::apply(from[i * from_step]);
  });
  return nullptr;
}

struct Add {
  template <typename T>
  static T apply(T a, T b) { return a + b; }
};
struct Sub {
  template <typename T>
  static T apply(T a, T b) { return a - b; }
};
struct Mul {
  template <typename T>
  static T apply(T a, T b) { return a * b; }
};
struct Div {
  template <typename T>
  static T apply(T a, T b) { return a / b; }
  static int32_t apply(int32_t a, int32_t b) { return b == 0 ? 0 : static_cast<int32_t>(static_cast<int64_t>(a) / b); }
  static uint8_t apply(uint8_t a, uint8_t b) { return b == 0 ? 0 : a / b; }
};
// Like Math.max and Math.min: NaN wins, over vectors and scalars alike.
struct Max {
  static Vec apply(Vec a, Vec b) { return select((a > b) | (a != a), a, b); }
  template <typename T>
  static T apply(T a, T b) { return a > b || a != a ? a : b; }
};
struct Min {
  static Vec apply(Vec a, Vec b) { return select((a < b) | (a != a), a, b); }
  template <typename T>
  static T apply(T a, T b) { return a < b || a != a ? a : b; }
};
struct Pow {
  template <typename T>
  static T apply(T a, T b) { return static_cast<T>(std::pow(static_cast<double>(a), static_cast<double>(b))); }
  static Vec apply(Vec a, Vec b) {
    Vec y;
    for (int i = 0; i < kLanes; i++) y[i] = apply(a[i], b[i]);
    return y;
  }
};

/// out = F(a, b) over runs; vectors where each operand is contiguous or one number.
template <typename F>
void binary_floats(const View& a, const View& b, const View& out) {
  const Runs<3> runs({&out, &a, &b});
  const int64_t so = runs.step(0), sa = runs.step(1), sb = runs.step(2);
  runs.each([&](const int64_t(&at)[3], int64_t n) {
    float* const to = out.as<float>() + at[0];
    const float* const x = a.as<float>() + at[1];
    const float* const y = b.as<float>() + at[2];
    int64_t i = 0;
    if (so == 1 && sa == 1 && sb == 1) {
      for (; i + kLanes <= n; i += kLanes) store(to + i, F::apply(load(x + i), load(y + i)));
    } else if (so == 1 && sa == 1 && sb == 0) {
      for (const Vec same = splat(*y); i + kLanes <= n; i += kLanes) store(to + i, F::apply(load(x + i), same));
    } else if (so == 1 && sa == 0 && sb == 1) {
      for (const Vec same = splat(*x); i + kLanes <= n; i += kLanes) store(to + i, F::apply(same, load(y + i)));
    }
    for (; i < n; i++) to[i * so] = F::apply(x[i * sa], y[i * sb]);
  });
}

template <typename F, typename T, typename Out>
void binary_scalars(const View& a, const View& b, const View& out) {
  const Runs<3> runs({&out, &a, &b});
  const int64_t so = runs.step(0), sa = runs.step(1), sb = runs.step(2);
  runs.each([&](const int64_t(&at)[3], int64_t n) {
    Out* const to = out.as<Out>() + at[0];
    const T* const x = a.as<T>() + at[1];
    const T* const y = b.as<T>() + at[2];
    for (int64_t i = 0; i < n; i++) to[i * so] = static_cast<Out>(F::apply(x[i * sa], y[i * sb]));
  });
}

Error wrong_type() { return fail("an element type that this kernel does not take"); }

template <typename F>
Error run_binary(const View& a, const View& b, const View& out) {
  switch (a.dtype) {
    case DType::f32:
      binary_floats<F>(a, b, out);
      return nullptr;
    case DType::i32:
      binary_scalars<F, int32_t, int32_t>(a, b, out);
      return nullptr;
    case DType::u8:
      binary_scalars<F, uint8_t, uint8_t>(a, b, out);
      return nullptr;
    default:
      return wrong_type();
  }
}

struct Equal {
  template <typename T>
  static bool apply(T a, T b) { return a == b; }
};
struct Less {
  template <typename T>
  static bool apply(T a, T b) { return a < b; }
};
struct LessEqual {
  template <typename T>
  static bool apply(T a, T b) { return a <= b; }
};

template <typename F>
Error run_compare(const View& a, const View& b, const View& out) {
  switch (a.dtype) {
    case DType::f32:
      binary_scalars<F, float, uint8_t>(a, b, out);
      return nullptr;
    case DType::i32:
      binary_scalars<F, int32_t, uint8_t>(a, b, out);
      return nullptr;
    case DType::u8:
      binary_scalars<F, uint8_t, uint8_t>(a, b, out);
      return nullptr;
    default:
      return wrong_type();
  }
}

/// Chooses by element width: bits are moved, not computed with.
template <typename T>
void choose(const View& cond, const View& a, const View& b, const View& out) {
  const Runs<4> runs({&out, &cond, &a, &b});
  const int64_t so = runs.step(0), sc = runs.step(1), sa = runs.step(2), sb = runs.step(3);
  runs.each([&](const int64_t(&at)[4], int64_t n) {
    T* const to = out.as<T>() + at[0];
    const uint8_t* const test = cond.as<uint8_t>() + at[1];
    const T* const x = a.as<T>() + at[2];
    const T* const y = b.as<T>() + at[3];
    for (int64_t i = 0; i < n; i++) to[i * so] = test[i * sc] ? x[i * sa] : y[i * sb];
  });
}

}  // namespace

Error unary(Args args) {
  const int64_t op = args.integer();
  const View x = args.view(), out = args.view();
  using Run = Error (*)(const View&, const View&);
  static constexpr Run kRuns[] = {run_unary<Neg>,     run_unary<Abs>,        run_unary<Sign>,    run_unary<Exp>,
                                  run_unary<Log>,     run_unary<Sqrt>,       run_unary<Rsqrt>,   run_unary<Square>,
                                  run_unary<Reciprocal>, run_unary<Sigmoid>, run_unary<Tanh>,    run_unary<Softplus>,
                                  run_unary<Silu>,    run_unary<Erf>};
  if (x.dtype != DType::f32) return wrong_type();
  return kRuns[op](x, out);
}

Error binary(Args args) {
  const int64_t op = args.integer();
  const View a = args.view(), b = args.view(), out = args.view();
  using Run = Error (*)(const View&, const View&, const View&);
  static constexpr Run kRuns[] = {run_binary<Add>, run_binary<Sub>, run_binary<Mul>, run_binary<Div>,
                                  run_binary<Max>, run_binary<Min>, run_binary<Pow>};
  return kRuns[op](a, b, out);
}

Error compare(Args args) {
  const int64_t op = args.integer();
  const View a = args.view(), b = args.view(), out = args.view();
  using Run = Error (*)(const View&, const View&, const View&);
  static constexpr Run kRuns[] = {run_compare<Equal>, run_compare<Less>, run_compare<LessEqual>};
  return kRuns[op](a, b, out);
}

Error where(Args args) {
  const View cond = args.view(), a = args.view(), b = args.view(), out = args.view();
  switch (bytes_of(out.dtype)) {
    case 4:
      choose<uint32_t>(cond, a, b, out);
      return nullptr;
    case 2:
      choose<uint16_t>(cond, a, b, out);
      return nullptr;
    default:
      choose<uint8_t>(cond, a, b, out);
      return nullptr;
  }
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
