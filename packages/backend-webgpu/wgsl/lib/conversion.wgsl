// Elements of operand a as elements of the output: `same`, or from_f32 and so on to_f32 and so on, as JavaScript's typed arrays convert.

#include halves

#if same
fn converted(x: a_type) -> out_type { return x; }
#else

// The number that an element is.
#if from_f32
fn number_of(x: f32) -> f32 { return x; }
#endif
#if from_bf16
fn number_of(x: u32) -> f32 { return f32_of_bf16(x); }
#endif
#if from_f16
fn number_of(x: u32) -> f32 { return f32_of_f16(x); }
#endif
#if from_i32
fn number_of(x: i32) -> i32 { return x; }
fn whole_of(x: i32) -> i32 { return x; }
#else
#if from_u8
fn number_of(x: u32) -> i32 { return i32(x); }
fn whole_of(x: i32) -> i32 { return x; }
#else
// Towards 0, modulo 2^32; 0 for what is not finite.
fn whole_of(x: f32) -> i32 {
  let bits = bitcast<u32>(x);
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  let exponent = i32((bits >> 23u) & 0xffu) - 150;
  if (exponent >= 32 || exponent <= -24) {
    return 0;
  }
  let magnitude = select(mantissa >> u32(-exponent & 31), mantissa << u32(exponent & 31), exponent >= 0);
  return select(1, -1, (bits >> 31u) == 1u) * i32(magnitude);
}
#endif
#endif

#if to_f32
fn converted(x: a_type) -> f32 { return f32(number_of(x)); }
#endif
#if to_bf16
fn converted(x: a_type) -> u32 { return bf16_of_f32(f32(number_of(x))); }
#endif
#if to_f16
fn converted(x: a_type) -> u32 { return f16_of_f32(f32(number_of(x))); }
#endif
#if to_i32
fn converted(x: a_type) -> i32 { return whole_of(number_of(x)); }
#endif
#if to_u8
fn converted(x: a_type) -> u32 { return bitcast<u32>(whole_of(number_of(x))) & 0xffu; }
#endif
#endif
