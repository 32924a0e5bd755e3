// Copies between any two element types and layouts, fill and iota.
// Knows strided memory. Knows no shape rule.

#include "../half.h"
#include "../kernels.h"
#include "strided.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

template <typename To, typename From>
struct Convert {
  static To apply(From x) { return static_cast<To>(x); }
};
template <typename From>
struct Convert<Bf16, From> {
  static Bf16 apply(From x) { return Bf16::from(static_cast<float>(x)); }
};
template <typename From>
struct Convert<F16, From> {
  static F16 apply(From x) { return F16::from(static_cast<float>(x)); }
};
template <>
struct Convert<Bf16, Bf16> {
  static Bf16 apply(Bf16 x) { return x; }
};
template <>
struct Convert<F16, F16> {
  static F16 apply(F16 x) { return x; }
};
/// As a JavaScript typed array does it: modulo 2^32 or 2^8, NaN and infinities to 0.
template <typename To>
struct ToInteger {
  static To apply(double x) {
    if (!std::isfinite(x)) return 0;
    return static_cast<To>(static_cast<uint64_t>(static_cast<int64_t>(std::fmod(std::trunc(x), 4294967296.0))));
  }
};
template <>
struct Convert<int32_t, float> : ToInteger<int32_t> {};
template <>
struct Convert<uint8_t, float> : ToInteger<uint8_t> {};
template <>
struct Convert<int32_t, Bf16> : ToInteger<int32_t> {};
template <>
struct Convert<uint8_t, Bf16> : ToInteger<uint8_t> {};
template <>
struct Convert<int32_t, F16> : ToInteger<int32_t> {};
template <>
struct Convert<uint8_t, F16> : ToInteger<uint8_t> {};

template <typename To, typename From>
void move(const View& x, const View& out) {
  const Runs<2> runs({&out, &x});
  const int64_t to_step = runs.step(0), from_step = runs.step(1);
  runs.each([&](const int64_t(&at)[2], int64_t n) {
    To* const to = out.as<To>() + at[0];
    const From* const from = x.as<From>() + at[1];
    if (to_step == 1 && from_step == 1) {
      for (int64_t i = 0; i < n; i++) to[i] = Convert<To, From>::apply(from[i]);
    } else {
      for (int64_t i = 0; i < n; i++) to[i * to_step] = Convert<To, From>::apply(from[i * from_step]);
    }
  });
}

template <typename To>
void move_from(const View& x, const View& out) {
  switch (x.dtype) {
    case DType::f32:
      return move<To, float>(x, out);
    case DType::bf16:
      return move<To, Bf16>(x, out);
    case DType::f16:
      return move<To, F16>(x, out);
    case DType::i32:
      return move<To, int32_t>(x, out);
    case DType::u8:
      return move<To, uint8_t>(x, out);
  }
}

template <typename T>
void set(const View& out, T value) {
  const Runs<1> runs({&out});
  const int64_t step = runs.step(0);
  runs.each([&](const int64_t(&at)[1], int64_t n) {
    T* const to = out.as<T>() + at[0];
    for (int64_t i = 0; i < n; i++) to[i * step] = value;
  });
}

}  // namespace

Error copy(Args args) {
  const View x = args.view(), out = args.view();
  switch (out.dtype) {
    case DType::f32:
      move_from<float>(x, out);
      break;
    case DType::bf16:
      move_from<Bf16>(x, out);
      break;
    case DType::f16:
      move_from<F16>(x, out);
      break;
    case DType::i32:
      move_from<int32_t>(x, out);
      break;
    case DType::u8:
      move_from<uint8_t>(x, out);
      break;
  }
  return nullptr;
}

Error fill(Args args) {
  const View out = args.view();
  const double value = args.number();
  switch (out.dtype) {
    case DType::f32:
      set(out, static_cast<float>(value));
      break;
    case DType::bf16:
      set(out, Bf16::from(static_cast<float>(value)));
      break;
    case DType::f16:
      set(out, F16::from(static_cast<float>(value)));
      break;
    case DType::i32:
      set(out, ToInteger<int32_t>::apply(value));
      break;
    case DType::u8:
      set(out, ToInteger<uint8_t>::apply(value));
      break;
  }
  return nullptr;
}

Error iota(Args args) {
  const View out = args.view();
  for (int64_t i = 0; i < out.shape[0]; i++) out.as<int32_t>()[i] = static_cast<int32_t>(i);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
