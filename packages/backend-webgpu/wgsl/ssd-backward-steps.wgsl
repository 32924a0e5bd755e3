// The gradients of dt, A and the bias of the Mamba-2 scan, for one head in a piece of time, a token to a thread: what the other passes
// have left in `sums`, with the part that goes through the states, e^{a_last} <dS, S>, makes
//   d(dt_t A) = sum over i >= t > j of the pairs + sum_{j<t} q_j + sum_{i>=t} r_i + e^{a_last} <dS, S>,
//   ddt_t = (A d(dt_t A) + x_t . dX_t) times the slope of dt,  dA = sum_t dt_t d(dt_t A).

#include grid
#include scan-pieces
#include ssd-decays
#include ssd-places
#include items

var<workgroup> parts: array<vec4f, 64>;

// The sums of the values before this thread's, and of this thread's and all after it.
fn both_sides(forward: f32, back: f32, lane: u32) -> vec2f {
  parts[lane].x = forward;
  parts[lane].y = back;
  workgroupBarrier();
  var sum = vec2f(forward, back);
  for (var distance = 1u; distance < 64u; distance *= 2u) {
    var more = vec2f();
    if (lane >= distance) {
      more.x = parts[lane - distance].x;
    }
    if (lane + distance < 64u) {
      more.y = parts[lane + distance].y;
    }
    workgroupBarrier();
    sum += more;
    parts[lane].x = sum.x;
    parts[lane].y = sum.y;
    workgroupBarrier();
  }
  var before = 0.0;
  if (lane > 0u) {
    before = parts[lane - 1u].x;
  }
  workgroupBarrier();
  return vec2f(before, sum.y);
}

fn sum_all(value: vec2f, lane: u32) -> vec2f {
  var sum = value;
  parts[lane] = vec4f(sum, 0.0, 0.0);
  for (var width = 32u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane < width) {
      sum += parts[lane + width].xy;
      parts[lane] = vec4f(sum, 0.0, 0.0);
    }
  }
  workgroupBarrier();
  let all = parts[0].xy;
  workgroupBarrier();
  return all;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups);
  if (unit >= u.units) {
    return;
  }
  let number = unit / u.heads;
  let head = unit - number * u.heads;
  let piece = piece_of(number);
  let count = count_of(unit);
  let kept = kept_of(unit);

  var product = item();
  for (var i = lane; i < u.state_items; i += 64u) {
    let at = unit * u.state_items + i;
    product += $S[u.S_at + at] * $dS[u.dS_at + at];
  }
  // Where nothing of the state comes through, it may be anything.
  let states = select(kept * sum_all(vec2f(total(product), 0.0), lane).x, 0.0, kept == 0.0 || count == 0u);

  var q = 0.0;
  var dots = 0.0;
  for (var tile = 0u; tile < u.tiles_p; tile++) {
    q += $sums[sum_at(q_kind(tile), unit, lane)];
    dots += $sums[sum_at(dot_kind(tile), unit, lane)];
  }
  var r = 0.0;
  for (var tile = 0u; tile < u.tiles_n; tile++) {
    r += $sums[sum_at(r_kind(tile), unit, lane)];
  }
  let sides = both_sides(q, r, lane);
  let inside = lane < count;
  let dstep_A = select(0.0, $sums[sum_at(0u, unit, lane)] + sides.x + sides.y + states, inside);
  let A = $A[u.A_at + head];
  let slope = slope_of(unit, lane);
  let ddt = select(0.0, fma(A, dstep_A, dots) * slope, inside);
#if HAS_ddt
  if (lane < piece.size) {
    $ddt[u.ddt_at + (piece.b * u.length + piece.first + lane) * u.ddt_pitch + head] = ddt;
  }
#endif
  let all = sum_all(vec2f(step_of(unit, lane) * dstep_A, ddt), lane);
  if (lane == 0u) {
    let at = row_sums_at(number) + u.heads * u.head_size;
    $sums[at + head] = all.x;
    $sums[at + u.heads + head] = all.y;
  }
}
