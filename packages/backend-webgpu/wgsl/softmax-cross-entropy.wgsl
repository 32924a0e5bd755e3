// Cross-entropy of a softmax with class indices, in nats: log(sum_v e^logit_v) - logit_target. A team takes a row and reads it once:
// each thread keeps the greatest logit it has seen and the sum of e^(logit - greatest), corrected when the greatest changes.
// One row of -Infinity alone, Infinity, NaN, and targets that are no class come out as NaN; ignored targets as 0.

#include grid
#include items
#include numbers
#include logarithm
#include workgroup-sum

// The greatest logit, and the sum.
alias summand = vec2f;
fn join(a: vec2f, b: vec2f) -> vec2f {
  let most = max(a.x, b.x);
  return vec2f(most, a.y * exp(a.x - most) + b.y * exp(b.x - most));
}

// Finite, so that -Infinity less this is -Infinity and no NaN.
const LOWEST = -3.4028234e38f;

fn logit(at: u32, class_index: u32) -> f32 {
#if fours
  return $logits[at + class_index / 4u][class_index % 4u];
#else
  return $logits[at + class_index];
#endif
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups) * (256u / team) + lane / team;
  let row = min(unit, u.rows - 1u);
  let at = u.logits_at + row * u.logits_pitch;
  let nothing = item(-infinity());

  var most = LOWEST;
  var sums = item(0.0);
  for (var i = lane % team; i < u.items; i += batch * team) {
    // A batch is read as a whole before any of it is used.
    var logits: array<item, batch>;
#repeat k batch
    logits[@k] = $logits[at + min(i + @k * team, u.items - 1u)];
#endrepeat
    var highest = most;
#repeat k batch
    logits[@k] = select(nothing, logits[@k], i + @k * team < u.items);
    highest = max(highest, greatest(logits[@k]));
#endrepeat
    sums *= exp(most - highest);
#repeat k batch
    sums += exp(logits[@k] - item(highest));
#endrepeat
    most = highest;
  }
  let all = join_team(vec2f(most, total(sums)), lane);
  if (lane % team != 0u || unit >= u.rows) {
    return;
  }
  // The bits of a positive finite sum; the greatest may not be Infinity.
  let is_number = bitcast<u32>(all.y) - 1u < 0x7f7fffffu && bitcast<u32>(all.x) != 0x7f800000u;
  let log_sum = exact_log(all.y);
  $logSumExp[u.logSumExp_at + row] = select(nan(), all.x + log_sum, is_number);
  let target_index = $targets[u.targets_at + row];
  var loss = 0.0;
  if (target_index != bitcast<i32>(u.ignored)) {
    let is_class = target_index >= 0 && u32(target_index) < u.classes;
    loss = select(nan(), log_sum - (logit(at, select(0u, u32(target_index), is_class)) - all.x), is_number && is_class);
  }
  $losses[u.losses_at + row] = loss;
}
