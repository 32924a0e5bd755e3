// Copies bytes or halves, converting between types, into a layout with gaps: other elements of its words stay as they are, and other
// threads write some of them at the same time. A word's bits are cleared and set one element at a time, by whole-number atomics.

#include grid
#include packed
#include axes(item)
#include operand(a)
#include conversion

alias out_type = u32;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let item = linear_group(group, groups) * 256u + lane;
  if (item >= u.items) {
    return;
  }
  let places = item_places(item);
  let value = converted(a_one(places.y));
  let at = u.out_at + places.x;
#if out_u8
  let word = at / 4u;
  let shift = 8u * (at & 3u);
  let mask = 0xffu;
#else
  let word = at / 2u;
  let shift = 16u * (at & 1u);
  let mask = 0xffffu;
#endif
  atomicAnd(&$out[word], ~(mask << shift));
  atomicOr(&$out[word], (value & mask) << shift);
}
