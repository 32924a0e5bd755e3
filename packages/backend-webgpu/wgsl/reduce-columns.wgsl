// Reductions over columns that lie side by side: a workgroup takes 32 items of a row (an item is an element, or with x_vec four) and
// a segment of the rows, eight threads to each item, every eighth row to each; they join theirs as a tree.

#include grid
#include axes(kept)
#include axes(along)
#include operand(x)
#include reduction

var<workgroup> shared_values: array<vec4<value_type>, 256>;

fn item_at(place: u32, row: u32) -> vec4<value_type> {
#if x_vec
  return x_four(place + along_places(row).x);
#else
  return vec4<value_type>(value_type(x_one(place + along_places(row).x)));
#endif
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  // Workgroups count tiles of columns, then the outer axes that are kept, then segments: those side by side read the same rows.
  let unit = linear_group(group, groups);
  let blocks = u.units / u.segments;
  let segment = unit / blocks;
  let rest = unit - segment * blocks;
  let outer = rest / u.tiles;
  let column = (rest - outer * u.tiles) * 32u + lane % 32u;
  let inside = unit < u.units && column < u.columns;
  let at = kept_places(outer);
  var all = vec4<value_type>(start());
  if (inside) {
    let place = at.x + column;
    let first = segment * u.segment_rows;
    let end = min(first + u.segment_rows, u.rows);
    var row = first + lane / 32u;
    for (; row + 24u < end; row += 32u) {
      let low = join_four(item_at(place, row), item_at(place, row + 8u));
      let high = join_four(item_at(place, row + 16u), item_at(place, row + 24u));
      all = join_four(all, join_four(low, high));
    }
    for (; row < end; row += 8u) {
      all = join_four(all, item_at(place, row));
    }
  }
  shared_values[lane] = all;
  for (var width = 128u; width >= 32u; width /= 2u) {
    workgroupBarrier();
    if (lane < width) {
      all = join_four(all, shared_values[lane + width]);
      shared_values[lane] = all;
    }
  }
  if (inside && lane < 32u) {
    let to = u.out_at + at.y + segment * u.segment_pitch;
#if x_vec
    let step = u.out_step;
    let place = to + 4u * column * step;
    $out[place] = all.x;
    $out[place + step] = all.y;
    $out[place + 2u * step] = all.z;
    $out[place + 3u * step] = all.w;
#else
    $out[to + column * u.out_step] = all.x;
#endif
  }
}
