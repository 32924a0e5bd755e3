// The square root of a sum, made by one workgroup.

#include workgroup-sum
#include root

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  var i = lane;
  for (; i + 768u < u.items; i += 1024u) {
    let at = u.x_at + i;
    sum += ($x[at] + $x[at + 256u]) + ($x[at + 512u] + $x[at + 768u]);
  }
  for (; i < u.items; i += 256u) {
    sum += $x[u.x_at + i];
  }
  let all = join_team(sum, lane);
  if (lane == 0u) {
    $out[u.out_at] = root(all);
  }
}
