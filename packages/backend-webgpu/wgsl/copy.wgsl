// Copies between any two layouts and element types.

#include elementwise
#include operand(a)
#include conversion

#if fours
fn four(at: vec4u) -> vec4<out_type> {
  let x = a_four(at.y);
  return vec4<out_type>(converted(x.x), converted(x.y), converted(x.z), converted(x.w));
}
#else
fn one(at: vec4u) -> out_type {
  return converted(a_one(at.y));
}
#endif
