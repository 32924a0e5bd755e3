// Reductions over rows: u.lanes threads side by side take a result (or one of its segments), each every u.lanes-th item of what it is
// made of, and join theirs as a tree. An item is an element, or with x_vec four.

#include grid
#include axes(kept)
#include axes(along)
#include operand(x)
#include reduction

var<workgroup> shared_values: array<value_type, 256>;

fn item_at(place: u32, i: u32) -> vec4<value_type> {
#if x_vec
  return x_four(place + along_places(i).x);
#else
  return vec4<value_type>(value_type(x_one(place + along_places(i).x)), vec3<value_type>(start()));
#endif
}

fn joined(place: u32, first: u32, end: u32) -> value_type {
  var all = vec4<value_type>(start());
  var i = first;
  for (; i + 3u * u.lanes < end; i += 4u * u.lanes) {
    let low = join_four(item_at(place, i), item_at(place, i + u.lanes));
    let high = join_four(item_at(place, i + 2u * u.lanes), item_at(place, i + 3u * u.lanes));
    all = join_four(all, join_four(low, high));
  }
  for (; i < end; i += u.lanes) {
    all = join_four(all, item_at(place, i));
  }
  return join_all(all);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups) * (256u / u.lanes) + lane / u.lanes;
  let inside = unit < u.units;
  let result = unit / u.segments;
  let segment = unit - result * u.segments;
  let at = kept_places(result);
  var value = start();
  if (inside) {
    let first = segment * u.segment_items;
    value = joined(at.x, first + lane % u.lanes, min(first + u.segment_items, u.items));
  }
  shared_values[lane] = value;
  for (var width = u.lanes / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane % u.lanes < width) {
      value = join(value, shared_values[lane + width]);
      shared_values[lane] = value;
    }
  }
  if (inside && lane % u.lanes == 0u) {
    $out[u.out_at + at.y + segment] = value;
  }
}
