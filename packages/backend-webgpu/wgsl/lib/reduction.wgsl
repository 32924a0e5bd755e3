// What a reduction (op_sum, op_max) does to two values of operand x: f32, or i32, as which bytes are reduced too.

#include numbers

#if x_f32
alias value_type = f32;
#else
alias value_type = i32;
#endif

#if op_sum
fn start() -> value_type { return value_type(0); }
fn join(a: value_type, b: value_type) -> value_type { return a + b; }
fn join_four(a: vec4<value_type>, b: vec4<value_type>) -> vec4<value_type> { return a + b; }
#endif

#if op_max
#if x_f32
fn start() -> f32 { return -infinity(); }
// NaN counts as greatest: it must not get lost.
fn join(a: f32, b: f32) -> f32 { return select(a, b, b > a || is_nan(b)); }
#else
fn start() -> i32 { return -2147483647 - 1; }
fn join(a: i32, b: i32) -> i32 { return max(a, b); }
#endif
fn join_four(a: vec4<value_type>, b: vec4<value_type>) -> vec4<value_type> {
  return vec4<value_type>(join(a.x, b.x), join(a.y, b.y), join(a.z, b.z), join(a.w, b.w));
}
#endif

fn join_all(a: vec4<value_type>) -> value_type {
  return join(join(a.x, a.y), join(a.z, a.w));
}
