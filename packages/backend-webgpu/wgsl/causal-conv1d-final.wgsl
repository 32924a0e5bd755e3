// Adds the gradient of a convolution's final state to the gradients of the inputs that it holds: one thread to each channel of a row.

#include grid
#include conv-reach

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let place = linear_group(group, groups) * 256u + lane;
  if (place >= u.batch * u.channels) {
    return;
  }
  let b = place / u.channels;
  let channel = place - b * u.channels;
  let end = end_of(b);
  if (end == 0u) {
    return;
  }
  let reach = reach_of(b, end - 1u);
  for (var back = 0u; i32(back) <= reach; back++) {
    let at = u.dx_at + (b * u.length + end - 1u - back) * u.dx_pitch + channel;
    $dx[at] += $dfinalState[u.dfinalState_at + place * width + width - 1u - back];
  }
}
