// The index of the first greatest element of a row. u.lanes threads side by side take a row (or one of its segments), each every
// u.lanes-th item (an element, or with x_vec four), and join theirs as a tree. With several segments the best of each is
// written as a value and an index (HAS_best); another run, over those (HAS_found), joins them.

#include grid
#include numbers
#include axes(kept)
#include operand(x)

#if x_f32
alias value_type = f32;
fn least() -> f32 { return -infinity(); }
// NaN is passed over, unless it comes first: nothing is greater than that.
fn ranked(x: f32, index: u32) -> Best {
  if (is_nan(x)) {
    return select_best(index == 0u, Best(infinity(), 0u), none());
  }
  return Best(x, index);
}
#else
alias value_type = i32;
fn least() -> i32 { return -2147483647 - 1; }
fn ranked(x: x_type, index: u32) -> Best { return Best(i32(x), index); }
#endif

struct Best { value: value_type, index: u32 }

fn none() -> Best { return Best(least(), 0xffffffffu); }

fn select_best(first: bool, a: Best, b: Best) -> Best {
  return Best(select(b.value, a.value, first), select(b.index, a.index, first));
}

fn better(a: Best, b: Best) -> Best {
  return select_best(a.value > b.value || (a.value == b.value && a.index < b.index), a, b);
}

var<workgroup> shared_best: array<Best, 256>;

fn item_at(place: u32, i: u32) -> Best {
#if HAS_found
  return Best(x_one(place + i), u32($found[u.found_at + place + i]));
#else
#if x_vec
  let x = x_four(place + i);
  let low = better(ranked(x.x, 4u * i), ranked(x.y, 4u * i + 1u));
  return better(low, better(ranked(x.z, 4u * i + 2u), ranked(x.w, 4u * i + 3u)));
#else
  return ranked(x_one(place + i * u.x_step), i);
#endif
#endif
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups) * (256u / u.lanes) + lane / u.lanes;
  let inside = unit < u.units;
  let row = unit / u.segments;
  let segment = unit - row * u.segments;
  let at = kept_places(row);
  var best = none();
  if (inside) {
    let first = segment * u.segment_items;
    let end = min(first + u.segment_items, u.items);
    for (var i = first + lane % u.lanes; i < end; i += u.lanes) {
      best = better(best, item_at(at.x, i));
    }
  }
  shared_best[lane] = best;
  for (var width = u.lanes / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane % u.lanes < width) {
      best = better(best, shared_best[lane + width]);
      shared_best[lane] = best;
    }
  }
  if (inside && lane % u.lanes == 0u) {
    let place = at.y + segment;
    $out[u.out_at + place] = i32(best.index);
#if HAS_best
    $best[u.best_at + place] = best.value;
#endif
  }
}
