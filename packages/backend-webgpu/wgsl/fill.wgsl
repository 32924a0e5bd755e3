// Every element of the output becomes the one whose bits are u.value.

#include elementwise

#if fours
fn four(at: vec4u) -> vec4<out_type> {
  return vec4<out_type>(bitcast<out_type>(u.value));
}
#else
fn one(at: vec4u) -> out_type {
  return bitcast<out_type>(u.value);
}
#endif
