// The function of one argument that the constants op_... choose. What is not finite comes out as it does in JavaScript.

#if op_neg
fn apply(x: f32) -> f32 { return -x; }
#endif
#if op_abs
fn apply(x: f32) -> f32 { return abs(x); }
#endif
#if op_sign
// NaN and the zeros are their own.
fn apply(x: f32) -> f32 { return select(select(x, -1.0, x < 0.0), 1.0, x > 0.0); }
#endif
#if op_exp
#include exponential
fn apply(x: f32) -> f32 { return exact_exp(x); }
#endif
#if op_log
#include logarithm
fn apply(x: f32) -> f32 { return exact_log(x); }
#endif
#if op_sqrt
// Some drivers take x / sqrt x for the root, which is NaN at 0 and Infinity.
fn apply(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  return select(sqrt(x), x, (bits & 0x7fffffffu) == 0u || bits == 0x7f800000u);
}
#endif
#if op_rsqrt
fn apply(x: f32) -> f32 { return inverseSqrt(x); }
#endif
#if op_square
fn apply(x: f32) -> f32 { return x * x; }
#endif
#if op_reciprocal
#include quotient
fn apply(x: f32) -> f32 { return quotient(1.0, x); }
#endif
#if op_sigmoid
#include exponential
fn apply(x: f32) -> f32 { return sigmoid(x); }
#endif
#if op_tanh
#include exponential
fn apply(x: f32) -> f32 { return exact_tanh(x); }
#endif
#if op_softplus
#include exponential
fn apply(x: f32) -> f32 { return softplus(x); }
#endif
#if op_silu
#include exponential
fn apply(x: f32) -> f32 { return silu(x); }
#endif
#if op_erf
#include exponential
fn apply(x: f32) -> f32 { return erf(x); }
#endif
