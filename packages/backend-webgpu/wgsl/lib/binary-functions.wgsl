// The function of two arguments that the constants op_... choose, for a_type f32, i32 or u32 (bytes, cut to eight bits when stored).

#include numbers

#if op_add
fn apply(a: a_type, b: a_type) -> a_type { return a + b; }
#endif
#if op_sub
fn apply(a: a_type, b: a_type) -> a_type { return a - b; }
#endif
#if op_mul
fn apply(a: a_type, b: a_type) -> a_type { return a * b; }
#endif
#if op_div
#if a_f32
#include quotient
fn apply(a: f32, b: f32) -> f32 { return quotient(a, b); }
#else
// Towards 0; 0 by 0, as JavaScript stores its infinities and NaN.
fn apply(a: a_type, b: a_type) -> a_type { return select(a / b, a_type(0), b == a_type(0)); }
#endif
#endif

// NaN wins.
#if op_max
#if a_f32
fn apply(a: f32, b: f32) -> f32 { return select(b, a, a > b || is_nan(a)); }
#else
fn apply(a: a_type, b: a_type) -> a_type { return max(a, b); }
#endif
#endif
#if op_min
#if a_f32
fn apply(a: f32, b: f32) -> f32 { return select(b, a, a < b || is_nan(a)); }
#else
fn apply(a: a_type, b: a_type) -> a_type { return min(a, b); }
#endif
#endif

#if op_pow
#if a_f32
#include logarithm
fn apply(a: f32, b: f32) -> f32 { return exact_pow(a, b); }
#else
// By squaring; a negative exponent leaves nothing but powers of 1 and -1.
fn apply(a: a_type, b: a_type) -> a_type {
  var base = a;
  var exponent = bitcast<u32>(b);
#if a_i32
  if (b < 0) {
    if (a != 1 && a != -1) {
      return 0;
    }
    exponent &= 1u;
  }
#endif
  var power = a_type(1);
  while (exponent != 0u) {
    if ((exponent & 1u) != 0u) {
      power *= base;
    }
    base *= base;
    exponent >>= 1u;
  }
  return power;
}
#endif
#endif

// False where either is NaN.
#if a_f32
fn ordered(a: f32, b: f32) -> bool { return !is_nan(a) && !is_nan(b); }
#else
fn ordered(a: a_type, b: a_type) -> bool { return true; }
#endif
#if op_eq
fn apply(a: a_type, b: a_type) -> u32 { return u32(a == b && ordered(a, b)); }
#endif
#if op_lt
fn apply(a: a_type, b: a_type) -> u32 { return u32(a < b && ordered(a, b)); }
#endif
#if op_le
fn apply(a: a_type, b: a_type) -> u32 { return u32(a <= b && ordered(a, b)); }
#endif
