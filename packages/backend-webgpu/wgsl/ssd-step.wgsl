// One token of every row through the Mamba-2 scan, from state to state: S' = e^(dt A) S + dt x B^T, y = S' C + D x, with dt =
// clamp(softplus(dt + dtBias)). A team takes a row of a head's state, one thread every `team`-th item; it may be replaced in place.

#include grid
#include items
#include workgroup-sum
#include exponential

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

fn step_of(b: u32, head: u32) -> f32 {
  var value = $dt[u.dt_at + b * u.dt_pitch + head];
#if HAS_dtBias
  value += $dtBias[u.dtBias_at + head];
#endif
#if softplus_dt
  value = softplus(value);
#endif
  // NaN stays, which `max` and `min` may lose.
  return select(min(max(value, u.low), u.high), value, is_nan(value));
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = linear_group(group, groups) * (256u / team) + lane / team;
  let inside = number < u.units * u.head_size;
  let row = min(number, u.units * u.head_size - 1u);
  let unit = row / u.head_size;
  let p = row - unit * u.head_size;
  let b = unit / u.heads;
  let head = unit - b * u.heads;
  let states = head / u.group_heads * u.items;
  let step = step_of(b, head);
  let x = $x[u.x_at + b * u.x_pitch + head * u.head_size + p];
  let input = step * x;
  let kept = exp(step * $A[u.A_at + head]);
  var sum = item();
  for (var i = lane % team; i < u.items; i += team) {
    var next = input * $B[u.B_at + b * u.B_pitch + states + i];
#if HAS_source
    next += kept * $source[u.source_at + row * u.items + i];
#endif
    sum += next * $C[u.C_at + b * u.C_pitch + states + i];
    if (inside) {
      $target[u.target_at + row * u.items + i] = next;
    }
  }
  var y = join_team(total(sum), lane);
  if (inside && lane % team == 0u) {
#if HAS_D
#if channel_skip
    y += $D[u.D_at + head * u.head_size + p] * x;
#else
    y += $D[u.D_at + head] * x;
#endif
#endif
    $y[u.y_at + b * u.y_pitch + head * u.head_size + p] = y;
  }
}
