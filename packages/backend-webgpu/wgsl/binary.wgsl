// Elementwise functions of two arguments of one type, comparisons (to u8) included.

#include elementwise
#include operand(a)
#include operand(b)
#include binary-functions

#if fours
fn four(at: vec4u) -> vec4<out_type> {
  let a = a_four(at.y);
  let b = b_four(at.z);
  return vec4<out_type>(apply(a.x, b.x), apply(a.y, b.y), apply(a.z, b.z), apply(a.w, b.w));
}
#else
fn one(at: vec4u) -> out_type {
  return apply(a_one(at.y), b_one(at.z));
}
#endif
