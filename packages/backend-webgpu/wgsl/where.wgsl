// out = c ? a : b. Elements of four bytes are moved as i32, others as packed bits: nothing is computed with them.

#include elementwise
#include operand(a)
#include operand(b)
#include operand(c)

#if fours
fn four(at: vec4u) -> vec4<out_type> {
  return select(b_four(at.z), a_four(at.y), c_four(at.w) != vec4u());
}
#else
fn one(at: vec4u) -> out_type {
  return select(b_one(at.z), a_one(at.y), c_one(at.w) != 0u);
}
#endif
