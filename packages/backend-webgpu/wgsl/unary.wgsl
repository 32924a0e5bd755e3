// Elementwise functions of one argument, f32.

#include elementwise
#include operand(a)
#include unary-functions

#if fours
fn four(at: vec4u) -> vec4f {
  let x = a_four(at.y);
  return vec4f(apply(x.x), apply(x.y), apply(x.z), apply(x.w));
}
#else
fn one(at: vec4u) -> f32 {
  return apply(a_one(at.y));
}
#endif
