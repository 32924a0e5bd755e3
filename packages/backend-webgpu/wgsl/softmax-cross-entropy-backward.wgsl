// The gradient of the cross-entropy, from the saved logSumExp: dloss (e^(logit - logSumExp) - [class = target]); 0 in ignored rows,
// NaN in rows whose target is no class or whose logSumExp is NaN. A team takes a row: one read, one write.

#include grid
#include items
#include numbers

// dloss of the target's place among the elements of item i.
fn target_part(i: u32, target_index: u32, dloss: f32) -> item {
#if fours
  return select(vec4f(0.0), vec4f(dloss), vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) == vec4u(target_index));
#else
  return select(0.0, dloss, i == target_index);
#endif
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = linear_group(group, groups) * (256u / team) + lane / team;
  if (row >= u.rows) {
    return;
  }
  let at = u.logits_at + row * u.logits_pitch;
  let to = u.dlogits_at + row * u.dlogits_pitch;
  let target_index = $targets[u.targets_at + row];
  if (target_index == bitcast<i32>(u.ignored)) {
    for (var i = lane % team; i < u.items; i += team) {
      $dlogits[to + i] = item(0.0);
    }
    return;
  }
  let is_class = target_index >= 0 && u32(target_index) < u.classes;
  let shift = $logSumExp[u.logSumExp_at + row];
  // Some drivers' `exp` loses a NaN.
  let dloss = select(nan(), $dlosses[u.dlosses_at + row], is_class && !is_nan(shift));
  for (var i = lane % team; i < u.items; i += batch * team) {
    // A batch is read as a whole before any of it is written.
    var logits: array<item, batch>;
#repeat k batch
    logits[@k] = $logits[at + min(i + @k * team, u.items - 1u)];
#endrepeat
#repeat k batch
    let place = i + @k * team;
    if (place < u.items) {
      $dlogits[to + place] = dloss * exp(logits[@k] - item(shift)) - target_part(place, u32(target_index), dloss);
    }
#endrepeat
  }
}
