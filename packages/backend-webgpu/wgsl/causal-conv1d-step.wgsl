// One token of every row through the causal convolution of four taps, a thread to a channel: what the state (B, C, 4) holds moves up
// by one, the token's input comes last, and y = act(bias + sum_k w_k state_k). The state may be replaced in place.

#include grid
#include items
#if silu_after
#include gate
#endif

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups) * 64u + lane;
  if (id >= u.items) {
    return;
  }
  let b = id / u.channels;
  let channel = id - b * u.channels;
  let weights = $weight[u.weight_at + channel];
#if HAS_initialState
  let before = $initialState[u.initialState_at + id].yzw;
#else
  let before = vec3f(0.0);
#endif
  let x = $x[u.x_at + b * u.x_pitch + channel];
#if HAS_bias
  var sum = $bias[u.bias_at + channel];
#else
  var sum = 0.0;
#endif
  sum += weights.x * before.x;
  sum += weights.y * before.y;
  sum += weights.z * before.z;
  sum += weights.w * x;
#if silu_after
  sum = silu(sum);
#endif
  $y[u.y_at + b * u.y_pitch + channel] = sum;
  $finalState[u.finalState_at + id] = vec4f(before, x);
}
